-- Removes the worker of a node that has stopped or died, which resque tools would show.
-- KEYS: unused key, workers; the starts of keys: worker, ping. ARGV: generation.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
for _, worker in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    local name, generation = string.match(worker, '^([^:]*:(%w%w%w%w%w%w%w%w%w%w)):')
    if generation == ARGV[1] then
        redis.call('SREM', KEYS[2], worker)
        redis.call('DEL', KEYS[3] .. worker, KEYS[3] .. worker .. ':started', KEYS[4] .. name)
    end
end
return 1
