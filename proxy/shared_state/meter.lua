-- Decides a batch: what a worker has to say of access tokens, and to ask, since its last call (`rules/batches.py`).
-- `rules/metering.py` makes the same decisions in Python, and is the place to read them.
--
-- KEYS: METER_READY, METER_LEDGER, METER_WORKERS, then METER_TOKEN with the digest of each token of the batch.
-- ARGV: the batch; then the msgpack of a row that tells how requests ended, empty where none did; then that of the
-- outcome of each withdrawal. All are without the last element, which is the time.
-- Returns nothing where Redis does not have all tokens yet; or else the admissions, what there is to say of bounds (empty:
-- nothing), and for each admission that is stale the record as it is. Raises SUPERSEDED where the batch has been decided, and nobody should be waiting any more.
--
-- First all is read and decided, then the ledger is written, then the rest: what Redis refuses (no memory, no disk, a
-- key of another type) it refuses before anything has changed. Numbers are integers below 2^53, written as such.
--
-- What costs most is to make text and msgpack of numbers (0.5 to 2 us each), so each is made once, and admissions and
-- bounds are flat arrays: of three numbers for each request, and of seven for each to which a bound applies.
local ADMITTED, UNKNOWN, STALE, DISABLED, DELETED, EXPIRED, PER_MINUTE, PER_SECOND, CONCURRENT, QUOTA =
  0, 1, 2, 3, 4, 5, 6, 7, 8, 9
local LEASE_MS, RATE_MS, FORGET_MS = 15000, 120000, 86400000
local AMOUNT_MAX = 9007199254740991
local MINUTE = {name = 'm', at = 'm:at', sum = 'm:sum', width_ms = 1000, slots = 61}
local SECOND = {name = 's', at = 's:at', sum = 's:sum', width_ms = 100, slots = 11}

local floor, pack, call, format = math.floor, cmsgpack.pack, redis.call, string.format
local worker, number, again, now_ms, parts, settlements, requests, withdrawals =
  unpack(cmsgpack.unpack(ARGV[1]), 1, 8)

if call('EXISTS', KEYS[1]) == 0 then
  return {}
end
local told = call('HGET', KEYS[3], worker .. ':call')
local last, verdicts = 0, ''
if told then
  last, verdicts = string.match(told, '^(%d+) (%d*)$')
  last = tonumber(last)
end
if number < last or number == last and not again then
  return redis.error_reply('SUPERSEDED')
end
if now_ms == 0 then
  local time = call('TIME')
  now_ms = time[1] * 1000 + floor(time[2] / 1000)
end
local packed_now = pack(now_ms)

-- Windows: a ring of counts, of one slot more than the window is long, and their sum. Slots are counted since 1970.

-- `at` is the slot of the latest admission, `sum` that of the counts then, `count` what lies where the slot of now does.
local function window_of(ring, key, at, sum, count)
  local slot = ring.slot
  local window = {ring = ring, key = key, slot = slot, sum = 0, count = 0, admitted = 0, stale = {}}
  at = at and tonumber(at)
  if not at then
    return window
  elseif slot - at >= ring.slots or at - slot >= ring.slots then
    for index = 0, ring.slots - 1 do
      window.stale[index + 1] = ring.name .. index
    end
    return window
  end
  window.at, window.sum = at, tonumber(sum)
  if slot == at then
    window.count = tonumber(count) or 0
  elseif slot < at then -- Redis's clock went back
    window.slot = at
    window.count = tonumber(call('HGET', key, ring.name .. at % ring.slots))
  else
    for passed = at + 1, slot do
      window.stale[passed - at] = ring.name .. passed % ring.slots
    end
    for _, left in ipairs(call('HMGET', key, unpack(window.stale))) do
      window.sum = window.sum - (tonumber(left) or 0)
    end
  end
  return window
end

local function retry_ms(window, limit)
  if not window.retry_ms then
    local ring, fields = window.ring, {}
    for index = 0, ring.slots - 1 do
      fields[index + 1] = ring.name .. index
    end
    local counts = call('HMGET', window.key, unpack(fields))
    local over = window.sum - limit + 1
    for slot = window.slot - ring.slots + 1, window.slot do
      if slot == window.slot then
        over = over - window.count
      elseif window.at and slot <= window.at then
        over = over - (tonumber(counts[slot % ring.slots + 1]) or 0)
      end
      if over <= 0 then
        window.retry_ms = (slot + ring.slots) * ring.width_ms - now_ms
        break
      end
    end
  end
  return window.retry_ms
end

local function reset_ms(window)
  local latest = window.admitted > 0 and window.slot or window.at
  return window.sum > 0 and (latest + window.ring.slots) * window.ring.width_ms - now_ms or 0
end

-- Tokens: each is read once, when it is first needed, and written once.

local tokens = {}

local function read_token(at)
  local token = tokens[at]
  if token then
    return token
  end
  local key, part = KEYS[at + 4], parts[at + 1]
  local there = call('HMGET', key, 'revision', 'state', 'expires_ms', 'per_minute', 'per_second', 'concurrent',
    'remaining', 'total', 'sequence', 'id')
  token = {
    key = key, id = there[10], running = part[1], admitted = 0,
    revision = tonumber(there[1]), state = there[2], expires_ms = tonumber(there[3]),
    per_minute = tonumber(there[4]), per_second = tonumber(there[5]), concurrent = tonumber(there[6]),
    remaining = tonumber(there[7]), total = tonumber(there[8]), sequence = tonumber(there[9]),
  }
  tokens[at] = token
  return token
end

local function read_windows(token)
  if token.windows then
    return
  end
  if token.per_minute == 0 and token.per_second == 0 then
    token.windows = {}
    return
  end
  if not MINUTE.slot then -- the first token of the batch with a rate
    for _, ring in ipairs({MINUTE, SECOND}) do
      ring.slot = floor(now_ms / ring.width_ms)
      ring.field = ring.name .. ring.slot % ring.slots
    end
  end
  local key = token.key .. ':rate'
  local there = call('HMGET', key, MINUTE.at, MINUTE.sum, MINUTE.field, SECOND.at, SECOND.sum, SECOND.field)
  token.minute = token.per_minute > 0 and window_of(MINUTE, key, there[1], there[2], there[3])
  token.second = token.per_second > 0 and window_of(SECOND, key, there[4], there[5], there[6])
  token.windows = {token.minute or token.second, token.minute and token.second or nil}
end

local beats = {}

local function is_alive(name)
  if not beats[name] then
    beats[name] = tonumber(call('HGET', KEYS[3], name) or 0)
  end
  return beats[name] > now_ms - LEASE_MS
end

local function read_held(token)
  if token.others then
    return
  end
  token.others, token.gone = 0, {}
  local there = call('HGETALL', token.key .. ':held')
  for at = 1, #there, 2 do
    if there[at] ~= worker then
      if is_alive(there[at]) then
        token.others = token.others + tonumber(there[at + 1])
      else
        table.insert(token.gone, there[at])
      end
    end
  end
end

-- The ledger.

local rows = {}
local CONSUME, REFUND = pack('consume'), pack('refund')

-- An array of nine, of which the first is the tag of `ledger.Change`; what a token's rows have in common is made once.
local function change(token, action, amount, request_id)
  local after = math.max(-AMOUNT_MAX, math.min(AMOUNT_MAX, token.remaining + amount))
  local sequence = token.sequence + 1
  if not token.packed_id then
    token.packed_id = '\153\1' .. pack(token.id)
    token.packed_total = pack(token.total)
    token.packed_remaining = pack(token.remaining)
  end
  local packed_after = pack(after)
  rows[#rows + 1] = token.packed_id .. pack(sequence) .. action .. token.packed_remaining .. packed_after
    .. token.packed_total .. pack(request_id) .. packed_now
  token.remaining, token.packed_remaining, token.sequence, token.changed = after, packed_after, sequence, true
end

local function outcome(data)
  rows[#rows + 1] = data .. packed_now
end

-- The decisions.

local function refusal(token, revision, cost)
  if not token.revision then
    return UNKNOWN, 0
  elseif token.revision ~= revision then
    return STALE, 0
  elseif token.state ~= 'active' then
    return token.state == 'deleted' and DELETED or DISABLED, 0
  elseif token.expires_ms > 0 and now_ms >= token.expires_ms then
    return EXPIRED, 0
  end
  read_windows(token)
  if token.per_minute > 0 and token.minute.sum >= token.per_minute then
    return PER_MINUTE, retry_ms(token.minute, token.per_minute)
  elseif token.per_second > 0 and token.second.sum >= token.per_second then
    return PER_SECOND, retry_ms(token.second, token.per_second)
  end
  if token.concurrent > 0 then
    read_held(token)
    if token.others + token.running >= token.concurrent then
      return CONCURRENT, 0
    end
  end
  if token.remaining and (token.remaining < cost or token.remaining <= 0) then
    return QUOTA, 0
  end
  return ADMITTED, 0
end

local function admit(token, cost, request_id)
  token.admitted = token.admitted + 1
  token.running = token.running + 1
  for _, window in ipairs(token.windows) do
    window.sum, window.count, window.admitted = window.sum + 1, window.count + 1, window.admitted + 1
  end
  if token.remaining then
    change(token, CONSUME, -cost, request_id)
  end
end

if number > last then
  for _, settlement in ipairs(settlements) do
    local place, amount, action, request_id = unpack(settlement)
    local token = read_token(place)
    if token.remaining then
      change(token, pack(action), amount, request_id)
    end
  end
  if ARGV[2] ~= '' then
    outcome(ARGV[2])
  end
else
  for at, withdrawal in ipairs(withdrawals) do
    if string.sub(verdicts, at, at) == '1' then
      local place, cost, request_id = unpack(withdrawal)
      local token = read_token(place)
      if token.remaining then
        change(token, REFUND, cost, request_id)
        outcome(ARGV[at + 2])
      end
    end
  end
end

local admissions, bounds, records, marks = {}, {}, {}, {}
for at, request in ipairs(requests) do
  local token, revision, cost, request_id = read_token(request[1]), request[2], request[3], request[4]
  local verdict, wait_ms = refusal(token, revision, cost)
  marks[at] = verdict == ADMITTED and '1' or '0'
  if verdict == ADMITTED then
    admit(token, cost, request_id)
  elseif verdict == STALE then
    records[#records + 1] = call('HGET', token.key, 'record')
  end
  local first = #admissions
  admissions[first + 1], admissions[first + 2], admissions[first + 3] = verdict, token.remaining or 0, token.total or -1
  local by_minute = (verdict == ADMITTED or verdict >= PER_MINUTE) and token.per_minute > 0
  local by_number = (verdict == ADMITTED or verdict >= CONCURRENT) and token.concurrent > 0
  if by_minute or by_number or wait_ms > 0 then
    first = #bounds
    bounds[first + 1], bounds[first + 2], bounds[first + 3], bounds[first + 4] = at - 1, 0, 0, 0
    bounds[first + 5], bounds[first + 6], bounds[first + 7] = wait_ms, 0, 0
    if by_minute then
      bounds[first + 2], bounds[first + 3] = token.per_minute, math.max(0, token.per_minute - token.minute.sum)
      bounds[first + 4] = reset_ms(token.minute)
    end
    if by_number then
      bounds[first + 6], bounds[first + 7] = token.concurrent, token.others + token.running
    end
  end
end

-- All is decided. What follows writes.

local function array(elements)
  return '\220' .. string.char(floor(#elements / 256), #elements % 256) .. table.concat(elements)
end

local function write_windows(token)
  local values, key, aged = {}, token.key .. ':rate', false
  for _, window in ipairs(token.windows) do
    local ring, slot = window.ring, window.slot
    if #window.stale > 0 then
      call('HDEL', key, unpack(window.stale))
    end
    local first = #values
    values[first + 1], values[first + 2] = ring.sum, format('%d', window.sum)
    values[first + 3], values[first + 4] = ring.name .. slot % ring.slots, format('%d', window.count)
    if window.at ~= slot then
      values[first + 5], values[first + 6], aged = ring.at, format('%d', slot), true
    end
  end
  call('HSET', key, unpack(values))
  if aged then
    call('PEXPIRE', key, RATE_MS)
  end
end

if #rows > 0 then
  call('XADD', KEYS[2], '*', 'kind', 'ledger', 'data', array(rows))
end
call('HSET', KEYS[3], worker, format('%d', now_ms), worker .. ':call', format('%d ', number) .. table.concat(marks))
for place, part in ipairs(parts) do
  local token, capped = tokens[place - 1], part[2]
  if token and token.changed then
    call('HSET', token.key, 'remaining', format('%d', token.remaining), 'sequence', format('%d', token.sequence))
  end
  if token and token.admitted > 0 and token.windows[1] then
    write_windows(token)
  end
  if capped or token and token.others then
    local running = token and token.running or part[1]
    local key = KEYS[place + 3] .. ':held'
    if token and token.gone and #token.gone > 0 then
      call('HDEL', key, unpack(token.gone))
    end
    if running > 0 then
      call('HSET', key, worker, format('%d', running))
    else
      call('HDEL', key, worker)
    end
  end
end
if not told then
  -- A new worker: it clears away those that have been silent for so long that they can have nothing to say again.
  local there = call('HGETALL', KEYS[3])
  for at = 1, #there, 2 do
    local beat = tonumber(there[at + 1])
    if beat and not string.find(there[at], ':', 1, true) and beat < now_ms - FORGET_MS then
      call('HDEL', KEYS[3], there[at], there[at] .. ':call')
    end
  end
end
return {pack(admissions), #bounds > 0 and pack(bounds) or '', unpack(records)}
