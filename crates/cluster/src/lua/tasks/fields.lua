-- Returns the cursor of the next page of attempts, then their fields and the lengths of their jobs. A field is short and a job
-- has up to 1 MiB: those of a page stay in Redis.
-- KEYS: running. ARGV: cursor.
local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', 16)
local fields, lengths = {}, {}
for n = 1, #page[2], 2 do
    fields[#fields + 1], lengths[#lengths + 1] = page[2][n], #page[2][n + 1]
end
return { page[1], fields, lengths }
