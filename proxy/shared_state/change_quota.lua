-- Changes the quota of an access token, as an operator asks for it, and tells the ledger in the same step.
--
-- KEYS: METER_TOKEN with the digest, METER_LEDGER, METER_READY.
-- ARGV: add (both total and remaining), set (remaining) or reset (remaining to total, with an amount both); the amount
-- (empty: none); the id of the operator's request; the largest amount; the time in ms (0: by Redis's clock).
-- Returns `ok` and the row in msgpack, or one word that says why nothing was changed. The latest request's id, said
-- again, changes nothing and gets the same row: whoever got no answer may ask again.
local AMOUNT_MAX = tonumber(ARGV[4])
if redis.call('EXISTS', KEYS[3]) == 0 then
  return {'not_ready'}
end
local there = redis.call('HMGET', KEYS[1], 'id', 'remaining', 'total', 'sequence', 'changed')
if not there[1] then
  return {'unknown'}
elseif not there[2] then
  return {'uncounted'}
end
if there[5] and ARGV[3] ~= '' and cmsgpack.unpack(there[5])[8] == ARGV[3] then
  return {'ok', there[5]}
end

local operation, amount = ARGV[1], tonumber(ARGV[2])
local before, total, sequence = tonumber(there[2]), tonumber(there[3]), tonumber(there[4]) + 1
local after
if operation == 'add' then
  after, total = before + amount, total + amount
elseif operation == 'set' then
  after = amount
else
  total = amount or total
  after = total
end
if after > AMOUNT_MAX or total > AMOUNT_MAX then
  return {'out_of_range'}
end

local now_ms = tonumber(ARGV[5])
if now_ms == 0 then
  local time = redis.call('TIME')
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end
-- An array of nine; the first is the tag of `ledger.Change`.
local row = '\153' .. cmsgpack.pack(1, there[1], sequence, 'recharge', before, after, total, ARGV[3], now_ms)
redis.call('XADD', KEYS[2], '*', 'kind', 'ledger', 'data', '\145' .. row)
redis.call('HSET', KEYS[1], 'remaining', after, 'total', total, 'sequence', sequence, 'changed', row)
return {'ok', row}
