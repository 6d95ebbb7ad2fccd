"""Quality of received pictures: measure, lpips, dists, colour; what networks see in them: classifier, segmenter.

confidence tells what error to expect of a picture whose original is not there.
"""
