"""An invented climate with the 16 channels of CAM5, whose cyclones and rivers are known: data to learn from at once."""
