-- Applies one batch of one shard, once.
--
--   KEYS   1 q  2 last  3 total  4 ix, then the keys of the operations in their order
--   ARGV   1 seq  2 prev  3 seconds that q lives, then groups: op, count, ttl, when, and count times its
--          arguments. `when` is the chunk's start and the resolutions it is rolled up to: 1700000400,10,60,3600
--
-- The batch carries the number of the batch before it. What q says decides:
--
--   q >= seq    applied before: a repeat after a lost reply. Nothing is done.
--   q == prev   the next one. q is set first: if the server refuses to write (OOM, READONLY, MISCONF) the
--               script ends there, with nothing applied. After it no error stops the batch half-way: each
--               operation is called protected and its error collected.
--   otherwise   something is missing. Nothing is done; the collector goes back to what the server has.
--
-- Reply: {1, seq, errors...} applied, {0, q} repeat, {-1, q} gap (q is -1 when there is none).

local call, pcall_ = redis.call, redis.pcall
local seq, prev = tonumber(ARGV[1]), tonumber(ARGV[2])
local q = tonumber(call('GET', KEYS[1]) or -1)
if q >= seq then return {0, q} end
if q ~= prev and not (q == -1 and prev == 0) then return {-1, q} end
call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])

local errors = {}
local function try(key, ...)
  local reply = pcall_(...)
  if type(reply) == 'table' and reply.err then
    if #errors < 8 then errors[#errors + 1] = key .. ': ' .. reply.err end
    return nil
  end
  return reply
end

-- HINCRBY is exact up to 2^63 and stores an integer in few bytes; it refuses fractions and overflow, which
-- HINCRBYFLOAT then takes.
local function add(key, field, delta)
  local reply = pcall_('HINCRBY', key, field, delta)
  if type(reply) == 'table' and reply.err then try(key, 'HINCRBYFLOAT', key, field, delta) end
end

-- Lua passes at most 8000 values to a call.
local function spread(command, key, from, count, values)
  for first = from, from + count - 1, 5000 do
    try(key, command, key, unpack(values or ARGV, first, math.min(first + 4999, from + count - 1)))
  end
end

local function store(key, pairs_) spread('HSET', key, 1, #pairs_, pairs_) end

local function fetch(key, fields)              -- values of a hash; a batch has no more than 1000 fields
  return #fields > 0 and try(key, 'HMGET', key, unpack(fields)) or {}
end

local k, a = 5, 4
local ops = {}

-- Late samples. From the moment that a roll-up of a chunk has begun (see compact.lua), what enters the chunk
-- marks it dirty, so that it is rolled up again. But a chunk may be gone already, for it was not to be kept
-- for longer; opened again it would hold this sample alone, and a slot rolled up from it would be wrong. So the
-- sample enters the coarsest slot that has data while the finer slots that it was made from have none any more.
-- The lives of keys and the time do not matter to this, only what is there.

local letters = {C = 'c', G = 'g', D = 'd', S = 's'}
local tag = string.match(KEYS[1], '^{.-}')
local LIVE = 7 * 86400                         -- what is to be rolled up again waits for it so long at least

local function begun(letter, from, to)         -- up to when a roll-up has begun
  local text = try(KEYS[1], 'HGET', tag .. ':wm:' .. to, letter .. ':' .. from)
  return tonumber(text and string.match(text, '^%d+') or 0)
end

local function where(letter, res, at)          -- the end of a key, and the slot in it
  if letter == 's' then return ':' .. res .. ':' .. math.floor(at / res), nil end
  return ':' .. res .. ':' .. math.floor(at / (res * 120)), math.floor(at / res) % 120
end

-- Whether a resolution has data in the span of `seconds` that `at` lies in.
local function there(letter, base, res, at, seconds)
  local first, n, names = at - at % seconds, seconds / res, {}
  local ending, slot = where(letter, res, first)
  if letter == 's' then
    for j = 0, n - 1 do names[j + 1] = base .. ':' .. res .. ':' .. string.format('%d', first / res + j) end
    return (try(base, 'EXISTS', unpack(names)) or 0) > 0
  end
  if letter == 'd' then
    for _, field in ipairs(try(base, 'HKEYS', base .. ending) or {}) do
      local found = tonumber(string.match(field, '^%d+'))
      if found and found >= slot and found < slot + n then return true end
    end
    return false
  end
  for j = 0, n - 1 do names[j + 1] = string.format('%d', slot + j) end
  for _, value in ipairs(try(base, 'HMGET', base .. ending, unpack(names)) or {}) do
    if value then return true end
  end
  return false
end

-- Puts a late sample where it belongs: its key, with the slot in ARGV[a] changed to that of the key.
local function late(letter, key, ladder)
  local base, res, number = string.match(key, '^(.*):(%d+):(%d+)$')
  local slot, rest = string.match(ARGV[a], '^(%d+)(.*)$')
  local at = letter == 's' and number * res or (number * 120 + slot) * res
  local level = 1
  for i = #ladder, 2, -1 do
    if there(letter, base, ladder[i], at, ladder[i]) and not there(letter, base, ladder[i - 1], at, ladder[i]) then
      level = i
      break
    end
  end
  local ending, found = where(letter, ladder[level], at)
  if found then ARGV[a] = string.format('%d', found) .. rest end
  if level < #ladder and begun(letter, ladder[level], ladder[level + 1]) > at then
    try(key, 'SADD', tag .. ':dirty', letter .. string.sub(base, #tag + 3) .. ending)
  end
  return base .. ending
end

-- Totals and last values lie in one hash each. Read and written in one go they cost a third of what they cost
-- field by field, here and in the server's log.

local totals, counted = {}, {}                 -- field -> what is to be added; the fields in their order

local function save_totals()
  local kept = {}
  for i, text in ipairs(fetch(KEYS[3], counted)) do
    local field, before = counted[i], tonumber(text or 0)
    local sum = before and before + totals[field]
    if before and whole(before) and whole(sum) then
      kept[#kept + 1] = field
      kept[#kept + 1] = number(sum)
    else
      add(KEYS[3], field, number(totals[field]))
    end
  end
  store(KEYS[3], kept)
end

ops.C = function(key)                          -- counter: slot, increment, field of the total
  local delta, field = ARGV[a + 1], ARGV[a + 2]
  add(key, ARGV[a], delta)
  a = a + 3
  if #delta > 12 then return add(KEYS[3], field, delta) end   -- 500 of the shorter ones stay below 2^53
  local sum = totals[field]
  if not sum then counted[#counted + 1] = field end
  totals[field] = (sum or 0) + delta
end

local lasts = {}                               -- field -> ms:value, as in the store once `changed` ones are there
local changed = {}

local function load_lasts(from, count)
  local fields = {}
  for i = 0, count - 1 do
    local field = ARGV[from + 5 * i + 1]
    if not lasts[field] then fields[#fields + 1] = field end
  end
  for i, text in ipairs(fetch(KEYS[2], fields)) do lasts[fields[i]] = text or '' end
end

local function save_lasts()
  local kept = {}
  for _, field in ipairs(changed) do kept[#kept + 1], kept[#kept + 2] = field, lasts[field] end
  store(KEYS[2], kept)
end

ops.G = function(key)                          -- gauge: slot, field of last, ms, set or move, value
  local slot, field, ms, how, value = ARGV[a], ARGV[a + 1], ARGV[a + 2], ARGV[a + 3], ARGV[a + 4]
  a = a + 5
  local last_ms, last_value = string.match(lasts[field] or '', '^(%d+):(.*)$')
  local late = last_ms and tonumber(last_ms) > tonumber(ms)
  -- A move adds to what there is, so that moves of several collectors add up.
  if how == 'move' then value = number((tonumber(last_value) or 0) + tonumber(value)) end
  if how == 'move' or not late then
    lasts[field] = (late and last_ms or ms) .. ':' .. value
    changed[#changed + 1] = field
  end
  try(key, late and 'HSETNX' or 'HSET', key, slot, value)
end

ops.D = function(key)                          -- sketch: field, blob
  try(key, 'HSET', key, ARGV[a], ARGV[a + 1])
  a = a + 2
end

-- A member holds the samples of one flush. To look how many there are costs more than to add some, so that is
-- done for every eighth.
local function trim(key, keep)
  local held = 0
  for i, member in ipairs(try(key, 'ZREVRANGE', key, 0, -1) or {}) do
    held = held + 1 + select(2, string.gsub(member, ',', ','))
    if held >= keep then return try(key, 'ZREMRANGEBYRANK', key, 0, -i - 1) end
  end
end

ops.T = function(key)                          -- samples: how many to keep, score, member
  try(key, 'ZADD', key, ARGV[a + 1], ARGV[a + 2])
  if (try(key, 'ZCARD', key) or 1) % 8 == 0 then trim(key, tonumber(ARGV[a])) end
  a = a + 3
end

ops.S = function(key)                          -- set: n, then n members
  local n = tonumber(ARGV[a])
  spread('PFADD', key, a + 1, n)
  a = a + 1 + n
end

ops.X = function(key)                          -- stream: longest, n, then n fields and values
  local longest, n = ARGV[a], tonumber(ARGV[a + 1])
  try(key, 'XADD', key, 'MAXLEN', '~', longest, '*', unpack(ARGV, a + 2, a + 1 + n))
  a = a + 2 + n
end

local function apply_late(op, ladder)
  local key = late(letters[op], KEYS[k], ladder)
  ops[op](key)
  if (try(key, 'TTL', key) or 0) < LIVE then try(key, 'EXPIRE', key, LIVE + 120 * ladder[1]) end
end

while a <= #ARGV do
  local op, count, ttl, when = ARGV[a], tonumber(ARGV[a + 1]), ARGV[a + 2], {}
  for number in string.gmatch(ARGV[a + 3], '%d+') do when[#when + 1] = tonumber(number) end
  a = a + 4
  local start = table.remove(when, 1)          -- `when` is the ladder from here on
  local is_late = #when > 1 and begun(letters[op], when[1], when[2]) > start
  if op == 'R' then                            -- registry: n times field, last seen
    spread('HSET', KEYS[4], a, 2 * count)
    a = a + 2 * count
  else
    if op == 'G' then load_lasts(a, count) end
    for _ = 1, count do
      if is_late then
        apply_late(op, when)
      else
        local key = KEYS[k]
        ops[op](key)
        if ttl ~= '0' then try(key, 'EXPIRE', key, ttl) end
      end
      k = k + 1
    end
  end
end
save_totals()
save_lasts()
return {1, seq, unpack(errors)}
