"""Frozen feature networks of the GPU job: VGG16 with LPIPS' weights, EfficientNet-Lite1 with its BatchNorm folded in."""

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

VGG_TAPS = {1: 0, 3: 1, 6: 2, 9: 3, 12: 4}  # after which convolution (0..12) a map is taken
VGG_POOL = {1, 3, 6, 9}
VGG_WIDTHS = (64, 128, 256, 512, 512)
LITE_TAPS = (24, 40, 112, 320)  # widths at strides 4, 8, 16, 32


def pack(vgg_file, lite_pth, lite_name, out):
    """int8 (per output channel) for VGG, float16 for Lite; one safetensors file."""
    from efficientnet_lite_pytorch import EfficientNet

    state, tensors = load_file(vgg_file), {}
    convs = sorted({int(k.split(".")[1]) for k in state if k.startswith("features")})
    for i, c in enumerate(convs):
        w = state[f"features.{c}.weight"]
        scale = w.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
        tensors[f"vgg.{i}.q"] = (w / scale[:, None, None, None]).round().to(torch.int8)
        tensors[f"vgg.{i}.s"], tensors[f"vgg.{i}.b"] = scale, state[f"features.{c}.bias"]
    for i in range(5):
        tensors[f"lin.{i}"] = state[f"lin{i}.weight"].flatten().float()
    net = EfficientNet.from_name(lite_name)
    net.load_state_dict(torch.load(lite_pth, map_location="cpu", weights_only=True))
    net.eval()

    def fold(name, conv, bn):
        s = bn.weight / (bn.running_var + bn.eps).sqrt()
        tensors[name + ".w"] = (conv.weight * s[:, None, None, None]).half()
        tensors[name + ".b"] = (bn.bias - bn.running_mean * s).float()

    fold("lite.stem", net._conv_stem, net._bn0)
    plan = []
    for i, b in enumerate(net._blocks):
        a = b._block_args
        if a.expand_ratio != 1:
            fold(f"lite.{i}.expand", b._expand_conv, b._bn0)
        fold(f"lite.{i}.dw", b._depthwise_conv, b._bn1)
        fold(f"lite.{i}.project", b._project_conv, b._bn2)
        s = a.stride[0] if isinstance(a.stride, (list, tuple)) else a.stride
        plan.append(
            (
                a.expand_ratio != 1,
                s,
                b._depthwise_conv.kernel_size[0],
                s == 1 and a.input_filters == a.output_filters,
                a.output_filters,
            )
        )
    tensors["lite.plan"] = torch.tensor([[int(v) for v in row] for row in plan], dtype=torch.int32)
    save_file({k: v.contiguous() for k, v in tensors.items()}, out)
    return net


class Features(nn.Module):
    """image [B, 3, H, W] in [0, 1] -> unit-length maps: five of VGG16, four of Lite1."""

    def __init__(self, path, device, dtype=torch.bfloat16):
        super().__init__()
        t = load_file(path)
        put = lambda x: x.to(device, dtype)
        cl = lambda w: w.to(memory_format=torch.channels_last)
        self.vgg = [
            (cl(put(t[f"vgg.{i}.q"].float() * t[f"vgg.{i}.s"][:, None, None, None])), put(t[f"vgg.{i}.b"]))
            for i in range(13)
        ]
        self.lin = [t[f"lin.{i}"].to(device).float() for i in range(5)]
        conv = lambda name: (cl(put(t[name + ".w"].float())), put(t[name + ".b"]))
        self.stem, self.blocks = conv("lite.stem"), []
        for i, (expand, stride, kernel, skip, _) in enumerate(t["lite.plan"].tolist()):
            self.blocks.append(
                (
                    conv(f"lite.{i}.expand") if expand else None,
                    conv(f"lite.{i}.dw"),
                    conv(f"lite.{i}.project"),
                    stride,
                    kernel,
                    skip,
                )
            )
        self.dtype = dtype
        self.shift = torch.tensor([-0.030, -0.088, -0.188], device=device)[:, None, None]
        self.scale = torch.tensor([0.458, 0.448, 0.450], device=device)[:, None, None]

    @staticmethod
    def unit(x):
        norm = torch.linalg.vector_norm(
            x, dim=1, keepdim=True
        ).float()  # in one pass; these maps are the largest of all
        return x * (1 / (norm + 1e-4)).to(x.dtype)

    def vgg_maps(self, image):
        x = ((2 * image - 1 - self.shift) / self.scale).to(self.dtype).contiguous(memory_format=torch.channels_last)
        maps = []
        for i, (w, b) in enumerate(self.vgg):
            x = F.relu(F.conv2d(x, w, b, padding=1), inplace=True)
            if i in VGG_TAPS:
                maps.append(self.unit(x))
            if i in VGG_POOL:
                x = F.max_pool2d(x, 2)
        return maps

    def lite_maps(self, image):
        x = ((image * 255 - 127) / 128).to(self.dtype).contiguous(memory_format=torch.channels_last)
        x = F.relu6(F.conv2d(F.pad(x, (0, 1, 0, 1)), *self.stem, stride=2))
        maps = []
        for i, (expand, dw, project, stride, kernel, skip) in enumerate(self.blocks):
            y = F.relu6(F.conv2d(x, *expand)) if expand else x
            p = kernel // 2
            if stride == 2:
                if y.shape[-1] % 2 == 0:  # TensorFlow's "same" padding
                    y = F.conv2d(F.pad(y, (p - 1, p, p - 1, p)), *dw, stride=2, groups=y.shape[1])
                else:
                    y = F.conv2d(F.pad(y, (p, p, p, p)), *dw, stride=2, groups=y.shape[1])
            else:
                y = F.conv2d(y, *dw, padding=p, groups=y.shape[1])
            y = F.conv2d(F.relu6(y), *project)
            x = x + y if skip else y
            last = (
                i + 1 == len(self.blocks)
                or self.blocks[i + 1][3] == 2
                or x.shape[1] != self.blocks[i + 1][2][0].shape[0]
            )
            if last and x.shape[1] in LITE_TAPS:
                maps.append(self.unit(x))
        return maps

    def lpips(self, a, b):
        total = 0.0
        for x, y, w in zip(a, b, self.lin):
            difference = (x - y).permute(0, 2, 3, 1)
            total = total + (difference * difference @ w.to(x.dtype)).mean(dtype=torch.float32)
        return total

    def lite_distance(self, a, b):
        return sum((x - y).square().mean(dtype=torch.float32) * x.shape[1] for x, y in zip(a, b)) / len(a)


class Critic(nn.Module):
    """One small head for every map of Features but the first, which is as large as the picture."""

    def __init__(self, width=64):
        super().__init__()
        heads = []
        for i, c in enumerate((*VGG_WIDTHS[1:], *LITE_TAPS)):
            stride = 2 if i == 0 else 1
            heads.append(
                nn.Sequential(
                    nn.Conv2d(c, width, 1),
                    nn.LeakyReLU(0.2),
                    nn.Conv2d(width, width, 3, stride, 1),
                    nn.LeakyReLU(0.2),
                    nn.Conv2d(width, width, 3, 1, 1),
                    nn.LeakyReLU(0.2),
                    nn.Conv2d(width, 1, 1),
                )
            )
        self.heads = nn.ModuleList(heads)

    def forward(self, maps):
        return [head(m * m.shape[1] ** 0.5) for head, m in zip(self.heads, maps[1:])]
