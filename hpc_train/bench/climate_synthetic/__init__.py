"""`hpc-train bench climate-synthetic`: synthetic weather beside CAM5, and what rules without learning reach on it."""
