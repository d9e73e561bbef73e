-- Registers a node as a worker, for resque tools, with the job that it works on, and removes the workers of nodes of ours
-- that are gone: neither a lease nor a ping, which those of other clusters have. Returns the cluster that uses this prefix:
-- the first one, while a node of it says so.
-- KEYS: unused key, leases, workers; the starts of keys: worker, ping; the cluster of this prefix. ARGV: generation, name,
-- queues, seconds for which ping and cluster last, text of the ping before the time, after the time, cluster, the job that
-- it works on or ''.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
if not redis.call('ZSCORE', KEYS[2], ARGV[1]) then
    return false
end
local now = redis.call('TIME')[1]
local worker = ARGV[2] .. ':' .. ARGV[3]
-- Other tools write this key: if it is spoilt, the node is not shown, and all else goes on.
if redis.pcall('SADD', KEYS[3], worker) == 1 then
    redis.call('SET', KEYS[4] .. worker .. ':started', now)
end
redis.call('SET', KEYS[5] .. ARGV[2], ARGV[5] .. now .. ARGV[6], 'EX', ARGV[4])
if ARGV[8] ~= '' then
    redis.call('SET', KEYS[4] .. worker, ARGV[8])
else
    redis.call('DEL', KEYS[4] .. worker)
end
for _, other in ipairs(redis.pcall('SMEMBERS', KEYS[3])) do
    local name, generation = string.match(other, '^([^:]*:(%w%w%w%w%w%w%w%w%w%w)):')
    local is_gone = generation and not redis.call('ZSCORE', KEYS[2], generation)
        and redis.call('EXISTS', KEYS[5] .. name) == 0
    if other ~= worker and (name == ARGV[2] or is_gone) then
        redis.call('SREM', KEYS[3], other)
        redis.call('DEL', KEYS[4] .. other, KEYS[4] .. other .. ':started')
    end
end
local cluster = redis.pcall('GET', KEYS[6])
if type(cluster) ~= 'string' or cluster == ARGV[7] then
    cluster = ARGV[7]
    redis.call('SET', KEYS[6], cluster, 'EX', ARGV[4])
end
return cluster
