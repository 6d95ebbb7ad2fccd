"""Quality of received pictures: measure, lpips, dists, colour; what networks see in them: classifier, segmenter."""
