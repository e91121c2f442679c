"""`hpc-train prepare masks`: pictures with mask pictures as shards."""
