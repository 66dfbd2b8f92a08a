"""Commands in processes of their own: supervised, leased a device, and settled after any death of their driver."""
