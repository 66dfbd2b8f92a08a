"""Run an experiment: ``python train.py experiment=drive_unet``."""

from neurotrain.app.train import main

if __name__ == "__main__":
    main()
