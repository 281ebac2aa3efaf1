-- One step of the roll-up of a shard, for whoever holds its lease.
--
--   KEYS   1 lease  2 dirty  3.. as the step needs them
--   ARGV   1 token  2 ms that the lease is renewed for  3 step, then what the step needs
--
-- A step is done whole or not at all, and doing it again changes nothing: slots are set, never added to. Who
-- lost the lease does nothing any more.
--
--   mark    KEYS 3 wm          ARGV field, begun, done       moves a watermark, forward only
--   roll    KEYS 3 wm of the next roll-up, then for each series what its keys start with
--           ARGV letter, from, to, next (0 when there is none), then for each series:
--                number of the chunk (of a set: of the coarser slot)
--                seconds that the chunk lives from now, seconds that the coarser one does
--                for sketches also: fields that the chunk had when it was read, n, then n times field and blob
--   sweep   KEYS 3 ix 4 total 5 last, then for each series its samples    ARGV for each series: field, last seen
--   free    gives the lease back
--
-- Reply: {-1} when the lease is lost, else {how many did what was asked, the positions of those that changed
-- since they were read...}.

local call = redis.call
if call('GET', KEYS[1]) ~= ARGV[1] then return {-1} end
call('PEXPIRE', KEYS[1], ARGV[2])

local SLOTS, LIVE = 120, 7 * 86400
local steps = {}

steps.free = function() return {call('DEL', KEYS[1])} end

steps.mark = function()
  local old = call('HGET', KEYS[3], ARGV[4]) or '0 0'
  local begun, done = string.match(old, '^(%d+) (%d+)$')
  begun, done = math.max(tonumber(begun), tonumber(ARGV[5])), math.max(tonumber(done), tonumber(ARGV[6]))
  call('HSET', KEYS[3], ARGV[4], string.format('%.0f %.0f', begun, done))
  return {1}
end

-- Each of these turns the fields of a chunk into those of the coarser one. `coarse` says in which slot one is,
-- or nothing where another program put a field that is none of ours; that one is left out.

-- A double holds sums up to 2^53 exactly; beyond that the server adds, with 64 bits, or as a long double where
-- those do not suffice.
local function long_sum(fields, coarse, key, slot)
  call('HDEL', key, slot)
  for n = 1, #fields, 2 do
    if coarse(fields[n]) == slot then
      local reply = redis.pcall('HINCRBY', key, slot, fields[n + 1])
      if type(reply) == 'table' then redis.pcall('HINCRBYFLOAT', key, slot, fields[n + 1]) end
    end
  end
end

local function sums(fields, coarse, key)
  local sum, size, out = {}, {}, {}
  for n = 1, #fields, 2 do
    local slot, value = coarse(fields[n]), tonumber(fields[n + 1])
    if slot and value then
      sum[slot] = (sum[slot] or 0) + value
      size[slot] = (size[slot] or 0) + (value < 0 and -value or value)
    end
  end
  for slot, value in pairs(sum) do
    if size[slot] < 2 ^ 53 then
      out[#out + 1], out[#out + 2] = slot, number(value)
    else
      long_sum(fields, coarse, key, slot)
    end
  end
  return out
end

local function lasts(fields, coarse)
  local newest, value, out = {}, {}, {}
  for n = 1, #fields, 2 do
    local at, slot = tonumber(fields[n]), tonumber(fields[n + 1]) and coarse(fields[n])
    if slot and (not newest[slot] or at > newest[slot]) then newest[slot], value[slot] = at, fields[n + 1] end
  end
  for slot, text in pairs(value) do out[#out + 1], out[#out + 2] = slot, text end
  return out
end

steps.roll = function()
  local letter, from, to, after = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
  local k, a = to / from, 8
  local reply = {0}
  local tag = string.match(KEYS[1], '^{.-}')
  local begun = after ~= '0' and call('HGET', KEYS[3], letter .. ':' .. to)
  begun = tonumber(begun and string.match(begun, '^%d+') or 0)

  -- A coarser chunk that was rolled up itself has to be so again; until then it lives.
  local function settle(base, coarser, start, seconds)
    if start < begun then
      call('SADD', KEYS[2], letter .. string.sub(base, #tag + 3) .. string.sub(coarser, #base + 1))
      seconds = math.max(seconds, LIVE)
    end
    -- The coarsest chunk fills for long: what a former rule has promised to its older slots is kept.
    if after == '0' then seconds = math.max(seconds, call('TTL', coarser)) end
    call('EXPIRE', coarser, seconds)
    reply[1] = reply[1] + 1
  end

  local function set(base, chunk, chunk_life, life)
    local minutes, found = {}, 0
    for j = 0, k - 1 do minutes[j + 1] = base .. ':' .. from .. ':' .. string.format('%d', chunk * k + j) end
    if call('EXISTS', unpack(minutes)) > 0 then
      local coarser = base .. ':' .. to .. ':' .. chunk
      call('PFMERGE', coarser, unpack(minutes))
      settle(base, coarser, chunk * to, life)
      for _, minute in ipairs(minutes) do call('EXPIRE', minute, chunk_life) end
    end
    for _, minute in ipairs(minutes) do
      call('SREM', KEYS[2], letter .. string.sub(base, #tag + 3) .. string.sub(minute, #base + 1))
    end
  end

  local function hash(base, chunk, chunk_life, life, position)
    local finer = base .. ':' .. from .. ':' .. chunk
    local coarser = base .. ':' .. to .. ':' .. math.floor(chunk / k)
    local fields
    if letter == 'd' then
      local had, n = tonumber(ARGV[a]), tonumber(ARGV[a + 1])
      fields = {unpack(ARGV, a + 2, a + 1 + 2 * n)}
      a = a + 2 + 2 * n
      if call('HLEN', finer) ~= had then       -- fields are only ever added, so their number tells
        reply[#reply + 1] = position
        return
      end
    else
      local first = chunk % k * SLOTS / k
      local function coarse(field)
        local slot = string.match(field, '^%d+$') and tonumber(field)
        return slot and slot < SLOTS and first + math.floor(slot / k)
      end
      fields = call('HGETALL', finer)
      if letter == 'c' then fields = sums(fields, coarse, coarser) else fields = lasts(fields, coarse) end
    end
    if #fields > 0 then call('HSET', coarser, unpack(fields)) end
    if call('EXISTS', finer) == 1 then
      settle(base, coarser, math.floor(chunk / k) * to * SLOTS, life)
      call('EXPIRE', finer, chunk_life)
    end
    call('SREM', KEYS[2], letter .. string.sub(base, #tag + 3) .. string.sub(finer, #base + 1))
  end

  for n = 4, #KEYS do
    local chunk, chunk_life, life = ARGV[a], ARGV[a + 1], tonumber(ARGV[a + 2])
    a = a + 3
    local roll = letter == 's' and set or hash
    local ok, why = pcall(roll, KEYS[n], chunk, chunk_life, life, n - 4)
    -- A key that another program made with another type costs its own series only.
    if not ok and not string.find(type(why) == 'table' and why.err or why, 'WRONGTYPE') then error(why) end
  end
  return reply
end

steps.sweep = function()
  local gone = 0
  for n = 6, #KEYS do
    local field, seen = ARGV[2 * n - 8], ARGV[2 * n - 7]
    if call('HGET', KEYS[3], field) == seen then
      call('HDEL', KEYS[3], field)
      call('HDEL', KEYS[4], field)
      call('HDEL', KEYS[5], field)
      call('UNLINK', KEYS[n])
      gone = gone + 1
    end
  end
  return {gone}
end

return steps[ARGV[3]]()
