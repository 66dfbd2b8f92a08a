"""Run an experiment: ``python train.py experiment=drive_unet``."""

from neurotrain.app.command import main

if __name__ == "__main__":
    main()
