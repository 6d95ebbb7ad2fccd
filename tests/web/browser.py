"""A real browser drives every control of the page; `make web-check` runs it, the default tests do not.

It needs Playwright and a Chromium: that of the system, or what $CHROMIUM names. axe-core (`npm pack axe-core`) is looked for
in out/axe; screenshots go to $SEMCAST_SCREENSHOTS if that is set.
"""

import io
import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import photo
from web_client import Server

from semcast.images import PHOTO, encode

playwright = pytest.importorskip("playwright.sync_api", reason="driving a browser needs playwright")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
if not CHROMIUM:
    pytest.skip("no Chromium is installed, and $CHROMIUM names none", allow_module_level=True)
AXE = next(iter(sorted(Path(__file__).parents[2].glob("out/axe/**/axe.min.js"))), None)
SHOTS = os.environ.get("SEMCAST_SCREENSHOTS")
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
WAIT_MS = 120_000
FAKE = ["--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server("small", tmp_path_factory.mktemp("web"), gone_s=1.0) as running:
        yield running


@pytest.fixture(scope="module")
def driver():
    with playwright.sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(driver):
    with driver.chromium.launch(executable_path=CHROMIUM, args=FAKE) as launched:
        yield launched


class Visit:
    """One machine that shows the page, and what went wrong on it."""

    def __init__(self, browser, port: int, size=DESK, path: str = "/", **options):
        self.context = browser.new_context(
            viewport=size, accept_downloads=True, permissions=["microphone", "camera"], **options
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.wrong, self.hosts = [], set()
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.wrong.append(message.text))
        self.page.on(
            "request", lambda request: self.hosts.add(request.url.split("/")[2] if "//" in request.url else "")
        )
        self.port = port
        self.page.goto(f"http://localhost:{port}{path}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.context.close()
        if kind is None:
            assert not self.wrong, self.wrong
            assert self.hosts <= {f"localhost:{self.port}", ""}, self.hosts

    def until(self, expression: str, arg=None) -> None:
        """Wait until a JavaScript expression is true. (Playwright's own way needs `eval`, which the page forbids.)"""
        end_s = time.monotonic() + WAIT_MS / 1000
        while not self.page.evaluate(expression, arg):
            assert time.monotonic() < end_s, expression
            time.sleep(0.05)

    def arrived(self) -> None:
        """Wait until the link's job has ended."""
        self.page.wait_for_selector("#link-progress:not(.active)", state="attached")
        self.page.wait_for_selector("input[value=codec]:enabled")
        self.until("document.getElementById('right').complete && !document.getElementById('right').hidden")

    def received(self) -> str:
        return self.page.get_attribute("#right", "src")

    def wait_for_other(self, before: str) -> str:
        self.until("before => document.getElementById('right').getAttribute('src') !== before", arg=before)
        self.arrived()
        return self.received()

    def shoot(self, name: str, **options) -> None:
        if SHOTS:
            self.page.screenshot(path=Path(SHOTS) / f"{name}.png", **options)

    def move(self, name: str, value) -> None:
        """Move a slider as a person does: its value changes, then it is let go."""
        self.page.eval_on_selector(
            f"#{name}",
            "(e, v) => { e.value = v; e.dispatchEvent(new Event('input', {bubbles: true})); "
            "e.dispatchEvent(new Event('change', {bubbles: true})); }",
            str(value),
        )


@pytest.fixture
def visit(browser, server):
    with Visit(browser, server.port) as made:
        made.arrived()
        yield made


def drop(page, path: Path, kind: str) -> None:
    """Drop a file on the page."""
    script = (
        "([bytes, name, type]) => { const t = new DataTransfer(); "
        "t.items.add(new File([new Uint8Array(bytes)], name, {type})); return t; }"
    )
    handle = page.evaluate_handle(script, [list(path.read_bytes()), path.name, kind])
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#stage", event, {"dataTransfer": handle})


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "holiday.png").write_bytes(encode(photo(300, 420, seed=4)))
    shutil.copy(PHOTO, folder / "astronaut.jpg")
    (folder / "no picture.txt").write_text("hello")
    return folder


def test_first_paint_and_a_picture_of_its_own(browser, server):
    with Visit(browser, server.port) as visit:
        visit.until("performance.getEntriesByName('first-contentful-paint').length > 0")
        painted_ms = visit.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        assert painted_ms < 1000
        visit.arrived()
        assert "symbols carried these 512×512 pixels" in visit.page.inner_text("#words")
        visit.page.wait_for_selector("#link-plots figure:nth-child(2) svg")


def test_a_photo_is_dropped_chosen_and_every_setting_changed(visit, files):
    page = visit.page
    before = visit.received()
    drop(page, files / "holiday.png", "image/png")
    before = visit.wait_for_other(before)
    assert "420×300 pixels" in page.inner_text("#words") and page.inner_text("#picture-name") == "holiday.png"
    page.set_input_files("#file", files / "astronaut.jpg")
    before = visit.wait_for_other(before)
    page.select_option("#channel", "rician")
    before = visit.wait_for_other(before)
    page.fill("#options input", "3")
    page.press("#options input", "Tab")
    before = visit.wait_for_other(before)
    page.click("#more summary")
    for name, value, shown in (("snr_db", -3, "−3 dB"), ("rungs", 12, "12 of 24 rungs"), ("steps", 2, "2")):
        visit.move(name, value)
        assert page.inner_text(f"#{name}-shown") == shown
        before = visit.wait_for_other(before)
    page.fill("#seed", "7")
    page.press("#seed", "Tab")
    before = visit.wait_for_other(before)
    page.select_option("#side", "256")
    visit.wait_for_other(before)
    assert "256×256 pixels" in page.inner_text("#words")


def test_the_line_moves_by_mouse_and_by_keyboard(visit):
    page = visit.page
    at = lambda: float(page.eval_on_selector("#stage", "e => e.style.getPropertyValue('--at') || '50'"))
    box = page.locator("#stage").bounding_box()
    page.mouse.click(box["x"] + 0.2 * box["width"], box["y"] + 40)
    assert abs(at() - 20) < 4
    page.focus("#split")
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert abs(at() - 25) < 4
    for value, words in (
        ("television", "slow-scan television"),
        ("codec", "an ideal code carries"),
        ("sent", "symbols carried"),
    ):
        page.check(f"input[value={value}]", force=True)
        visit.until("words => document.getElementById('words').textContent.includes(words)", arg=words)
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "received.png"
    assert Image.open(download.value.path()).size == (512, 512)


def test_the_picture_grows(visit):
    page = visit.page
    page.click("#grow")
    page.wait_for_selector("#growth-progress.active progress")
    page.wait_for_selector("#strip li:nth-child(8)")
    assert page.inner_text("#prefix-shown").startswith("24 rungs")
    last = page.get_attribute("#grown", "src")
    page.focus("#prefix")
    page.keyboard.press("Home")
    assert page.inner_text("#prefix-shown").startswith("1 rungs") and page.get_attribute("#grown", "src") != last


def test_a_sound_is_made_played_saved_and_decoded_again_elsewhere(browser, server, driver, files):
    with Visit(browser, server.port) as sender:
        sender.arrived()
        page = sender.page
        page.select_option("#path", "watterson-good")
        sender.move("snr3k_db", 25)
        sender.move("offset_hz", 50)
        page.select_option("#profile", "narrow")
        page.click("#radio button[type=submit]")
        page.wait_for_selector("#signal-heard .pictures figure:nth-child(2) img")
        page.wait_for_selector("#signal-progress:not(.active)", state="attached")
        assert "narrow transmission was heard" in page.inner_text("#signal-heard .words")
        page.wait_for_selector("#signal-heard .plots figure:nth-child(2)")
        sender.until("document.querySelector('#signal-heard audio').duration > 1")
        page.eval_on_selector("#signal-heard audio", "e => e.play()")
        sender.until("document.querySelector('#signal-heard audio').currentTime > 0.2")
        page.wait_for_selector("#signal-heard .playhead:not([hidden])", state="attached")
        links = page.locator("#signal-heard .players a")
        with page.expect_download() as download:
            links.nth(1).click()
        wav = files / "arrived.wav"
        download.value.save_as(wav)
        with page.expect_download() as download:
            page.click("#frame")
        frame = files / "sent.sem"
        download.value.save_as(frame)
    assert wav.read_bytes()[:4] == b"RIFF" and frame.read_bytes()[:4] == b"SEMC"
    with Visit(browser, server.port) as receiver:
        receiver.arrived()
        page = receiver.page
        for file, told in ((wav, "narrow transmission was heard"), (frame, "")):
            page.set_input_files("#recording", file)
            page.wait_for_selector("#receive-progress:not(.active)", state="attached")
            page.wait_for_selector("#receive-heard .pictures img")
            receiver.until(
                "told => document.querySelector('#receive-heard .words').textContent.includes(told)", arg=told
            )
        drop(page, wav, "audio/wav")
        receiver.until("document.querySelectorAll('#receive-heard .players audio').length === 1")
    heard = [*FAKE, f"--use-file-for-fake-audio-capture={wav}"]
    with driver.chromium.launch(executable_path=CHROMIUM, args=heard) as third, Visit(third, server.port) as machine:
        machine.arrived()
        machine.page.click("#record")
        machine.page.wait_for_selector("#level:not([hidden])")
        machine.until("/, [6-9] s/.test(document.getElementById('record-hint').textContent)")
        machine.page.click("#record")
        machine.page.wait_for_selector("#receive-heard .pictures img")
        assert "narrow transmission was heard" in machine.page.inner_text("#receive-heard .words")


def test_a_photo_is_taken(visit):
    page, before = visit.page, visit.received()
    page.click("#camera")
    visit.until("document.getElementById('viewfinder').videoWidth > 0")
    page.wait_for_timeout(300)
    page.click("#shutter")
    visit.wait_for_other(before)
    assert page.inner_text("#picture-name") == "Your photo"
    page.click("#camera")
    page.wait_for_selector("#camera-dialog[open]")
    page.click("#camera-close")
    page.wait_for_selector("#camera-dialog", state="hidden")


def test_a_link_holds_settings_and_no_picture(browser, server, visit, files):
    page, before = visit.page, visit.received()
    page.set_input_files("#file", files / "holiday.png")
    before = visit.wait_for_other(before)
    page.select_option("#channel", "rician")
    before = visit.wait_for_other(before)
    visit.move("snr_db", -4)
    visit.wait_for_other(before)
    page.click("#share")
    visit.until("document.getElementById('shared').textContent.length > 0")
    address = page.url
    assert "holiday" not in address and "snr_db=-4" in address and len(address) < 400
    with Visit(browser, server.port, path=address.split(str(server.port))[1]) as other:
        other.arrived()
        values = [other.page.input_value(f"#{name}") for name in ("channel", "snr_db", "rungs")]
        assert values == ["rician", "-4", "8"]
        assert "512×512" in other.page.inner_text("#words")  # the sample
    with Visit(browser, server.port, path="/?channel=os:system&snr_db=1e9&side=x&seed=-1&rungs=<script>") as odd:
        odd.arrived()
        assert odd.page.input_value("#channel") == "awgn" and odd.page.input_value("#side") == "512"


def test_mistakes_are_one_sentence_and_cancel_works(visit, files):
    page = visit.page
    page.set_input_files("#file", files / "no picture.txt")
    page.wait_for_selector("#link-progress .error:not([hidden])")
    told = page.inner_text("#link-progress .error")
    assert told.endswith(".") and "\n" not in told and "picture" in told
    page.set_input_files("#recording", files / "holiday.png")
    page.wait_for_selector("#receive-progress .error:not([hidden])")
    page.set_input_files("#file", files / "astronaut.jpg")
    visit.arrived()
    page.click("#more summary")
    page.select_option("#side", "1024")
    visit.move("steps", 20)
    page.wait_for_selector("#link-progress.active .cancel")
    page.click("#link-progress .cancel")
    page.wait_for_selector("#link-progress:not(.active)", state="attached")
    start_s = time.monotonic()
    page.select_option("#side", "256")
    visit.move("steps", 1)
    visit.until("document.getElementById('words').textContent.includes('256×256')")
    assert time.monotonic() - start_s < 60


def test_who_waits_sees_the_turn(browser, server, visit):
    visit.page.click("#more summary")
    visit.page.select_option("#side", "1024")
    visit.move("steps", 20)
    visit.until("document.querySelector('#link-progress .progress-words').textContent.includes('diffusion step')")
    with Visit(browser, server.port) as other:
        words = "document.querySelector('#link-progress .progress-words').textContent"
        other.until(f"{words}.includes('1 job is ahead of yours, about')")
        visit.page.click("#link-progress .cancel")
        other.arrived()


def test_an_overlay_is_offered_when_there_is_one(browser, server):
    state = {"job": "j", "state": "done", "ahead": 0, "wait_s": 0, "share": 1, "words": "", "error": "", "figures": {}}
    size = {"width": 512, "height": 512, "type": "image/png"}
    results = [{"name": name, "url": f"/static/sample.jpg?{name}", **size} for name in ("sent", "received")]
    state["results"] = [
        *results,
        {"name": "confidence", "url": "/static/icon.svg", "type": "image/png", "overlay": True},
    ]
    context = browser.new_context(viewport=DESK)
    page = context.new_page()
    page.route("**/api/jobs", lambda route: route.fulfill(status=202, json=state))
    page.goto(f"http://localhost:{server.port}/")
    page.wait_for_selector("#overlay-switch:not([hidden])")
    assert page.is_hidden("#overlay")
    page.check("#overlay-on")
    page.wait_for_selector("#overlay[src='/static/icon.svg']")
    page.uncheck("#overlay-on")
    assert page.is_hidden("#overlay")
    context.close()


def test_who_leaves_is_forgotten(browser, server):
    with Visit(browser, server.port) as visit:
        visit.arrived()
        assert server.metric("session_bytes") > 0
        visit.page.click("#forget")
        visit.page.wait_for_load_state()
        visit.arrived()
    end_s = time.monotonic() + 30
    while server.metric("session_bytes") > 0 or server.metric("sessions") > 0:
        assert time.monotonic() < end_s
        time.sleep(0.2)


def test_it_works_with_the_keyboard_alone(visit):
    page, reached = visit.page, []
    page.evaluate("document.activeElement.blur()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent.trim()"))
    wanted = [
        "Skip to the picture",
        "Picture",
        "Receive",
        "forget",
        "split",
        "save",
        "file",
        "camera",
        "channel",
        "snr_db",
    ]
    wanted += [
        "rungs",
        "More",
        "send",
        "share",
        "grow",
        "path",
        "snr3k_db",
        "offset_hz",
        "profile",
        "frame",
        "recording",
        "record",
    ]
    assert [name for name in wanted if name not in reached] == []
    before = visit.received()
    page.focus("#snr_db")
    page.keyboard.press("ArrowLeft")
    visit.wait_for_other(before)


@pytest.mark.parametrize("size", [DESK, PHONE, {"width": 320, "height": 640}], ids=["desk", "phone", "narrow"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_has_no_serious_violation(browser, server, size, scheme):
    with Visit(browser, server.port, size, color_scheme=scheme, bypass_csp=True) as visit:
        page = visit.page
        visit.arrived()
        page.wait_for_selector("#link-plots figure:nth-child(2) svg")
        name = f"{'desk' if size is DESK else 'phone' if size is PHONE else 'narrow'}-{scheme}"
        page.wait_for_timeout(400)
        visit.shoot(name)
        page.click("#grow")
        page.wait_for_selector("#strip li:nth-child(4)")
        page.select_option("#path", "watterson-poor")
        page.click("#radio button[type=submit]")
        page.wait_for_selector("#signal-heard .pictures figure:nth-child(2) img")
        page.wait_for_selector("#signal-heard .figures div")
        page.click("#more summary")
        page.select_option("#channel", "impulsive")
        page.wait_for_selector("#options select")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
        if size is DESK:
            page.wait_for_selector("#strip li:nth-child(8)")
            page.evaluate("document.getElementById('signal').scrollIntoView({behavior: 'instant'})")
            page.wait_for_timeout(300)
            visit.shoot(f"{name}-signal")
            page.evaluate("document.getElementById('growth').scrollIntoView({behavior: 'instant'})")
            page.wait_for_timeout(300)
            visit.shoot(f"{name}-growth")
        visit.arrived()
        visit.shoot(f"{name}-full", full_page=True)
        if AXE is None:
            pytest.skip("axe-core is not in out/axe: npm pack axe-core")
        page.evaluate("window.scrollTo(0, 0)")  # what lies half below the bar at the top would count as too small
        page.wait_for_timeout(300)
        page.evaluate(AXE.read_text())
        found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})")
        bad = [(v["id"], v["impact"], [n["html"][:160] for n in v["nodes"]]) for v in found["violations"]]
        assert not bad, bad


def test_screenshots_are_of_the_picture(visit):
    data = visit.page.locator("#stage").screenshot()
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float)
    assert pixels.std() > 30  # not an empty frame
