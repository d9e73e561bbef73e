-- Seals a batch, and ends it if no member is left. Returns '' if it is sealed, 'finished' if it is over
-- with that, why it is not sealed, or `!` and the key that is spoilt.
-- KEYS: unused key, batch, queues, deadlines of batches; the starts of keys: batches, members that ended, ready, again, suspects,
-- jobs that take turns. ARGV: id, channel.
redis.call('DEL', KEYS[1]) -- a full Redis refuses a script whose first write may need memory
local put = placer(KEYS[3], KEYS[7], KEYS[8], KEYS[9], ARGV[2], KEYS[10])
local counters = batch_counters(put, KEYS[5], KEYS[6], KEYS[7], KEYS[4])
local batch, key = counters.read(ARGV[1])
if key then
    return '!' .. key
end
local ended = redis.call('HGET', KEYS[2], 'end')
if ended or not batch then
    return ended == 'expired' and 'expired' or ended and 'sealed' or 'unknown'
end
if batch.is_sealed then
    return 'sealed'
end
redis.call('HSET', KEYS[2], 'sealed', 1)
batch.is_sealed = true
counters.finish(batch)
return counters.count_over() > 0 and 'finished' or ''
