-- Puts a ban where another one is expected: compare-and-set of one field, counted, remembered and announced.
--
-- KEYS: BANS, BANS_VERSION, BANS_CHANGES.
-- ARGV: the field; the bytes that are expected there (empty: none); those to be put there (empty: none); the channel;
-- the announcement's msgpack before the number of the change, and after it.
-- Returns whether it was put (1 or 0), the number of the latest change, and what is there now.
local there = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if there ~= ARGV[2] then
  return {0, tonumber(redis.call('GET', KEYS[2]) or 0), there}
end
if ARGV[3] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
local number = redis.call('INCR', KEYS[2])
redis.call('ZADD', KEYS[3], number, ARGV[1])
redis.call('PUBLISH', ARGV[4], ARGV[5] .. cmsgpack.pack(number) .. ARGV[6])
return {1, number, ARGV[3]}
