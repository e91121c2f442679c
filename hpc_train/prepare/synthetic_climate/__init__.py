"""An invented climate with the 16 channels of CAM5 and known cyclones and rivers: training data without a download."""
