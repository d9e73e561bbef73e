-- Replaces the content of a key with a dumped one.
-- KEYS: value. ARGV: kind, ttl in ms or '', then the value or the items.
redis.call('DEL', KEYS[1])
for n = 3, #ARGV do
    if ARGV[1] == 'list' then
        redis.call('RPUSH', KEYS[1], ARGV[n])
    else
        redis.call('SET', KEYS[1], ARGV[n])
    end
end
if ARGV[2] ~= '' then
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
