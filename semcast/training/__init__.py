"""Training: train.py is the loop, config.py has its settings, phases and presets, losses.py the loss of each phase."""
