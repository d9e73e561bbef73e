-- Releases the claim of a job, if it has it. KEYS: claim. ARGV: id.
return release(KEYS[1], ARGV[1]) and 1 or 0
