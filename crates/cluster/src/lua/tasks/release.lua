-- Releases the claim of a job, if it has it. KEYS: claim. ARGV: id.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
