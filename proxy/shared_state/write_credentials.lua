-- Writes some credentials, each with the version that changed it, for as long as nobody else has begun to write all.
--
-- KEYS: CREDENTIALS, CREDENTIALS_CHANGES.
-- ARGV: the generation that is expected; the version; 'whole' or 'part'; ids and records in turn (empty: it is gone).
-- Of a part, what a later version has written stays: two control planes may publish at once.
-- Returns 1, or 0 where the generation is another one: then nothing was written.
if (redis.call('HGET', KEYS[1], '') or '') ~= ARGV[1] then
  return 0
end
local version = tonumber(ARGV[2])
for at = 4, #ARGV, 2 do
  local id, record = ARGV[at], ARGV[at + 1]
  local known = ARGV[3] == 'part' and redis.call('ZSCORE', KEYS[2], id)
  if not known or tonumber(known) <= version then
    if record == '' then
      redis.call('HDEL', KEYS[1], id)
    else
      redis.call('HSET', KEYS[1], id, record)
    end
    redis.call('ZADD', KEYS[2], version, id)
  end
end
return 1
