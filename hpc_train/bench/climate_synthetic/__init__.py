"""`hpc-train bench climate-synthetic`: synthetic weather beside CAM5, and what rules reach on it without learning."""
