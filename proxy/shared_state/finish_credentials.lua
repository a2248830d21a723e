-- Says that a version of the credentials is written, unless somebody else has begun to write all.
--
-- KEYS: CREDENTIALS, CREDENTIALS_VERSION.
-- ARGV: the generation that is expected; the one that this is; the mark; the channel; the announcement.
-- Returns 1, or 0 where the generation is another one.
if (redis.call('HGET', KEYS[1], '') or '') ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[1], '', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
