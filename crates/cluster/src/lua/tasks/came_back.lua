-- The node of a reaped generation runs on: for the jobs that it ran, the reap is a stall. A job that was given back may run
-- elsewhere by now, under its counters: the next reap of a node that runs it sets them right.
-- KEYS: unused key, mark of the generation, jobs for which its reap counted as a death; the start of keys: deaths of a job that
-- were stalls. ARGV: ms for which this is remembered.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
local ids = redis.pcall('SMEMBERS', KEYS[3])
redis.call('SET', KEYS[2], '1', 'PX', ARGV[1])
redis.call('DEL', KEYS[3])
for _, id in ipairs(ids) do
    redis.pcall('INCR', KEYS[4] .. id)
    redis.pcall('PEXPIRE', KEYS[4] .. id, ARGV[1])
end
return #ids
