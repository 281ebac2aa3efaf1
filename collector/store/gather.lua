-- Reads chunks of several series in one call: a reply of a few long strings costs the client a tenth of what
-- one string for each slot and value does.
--
--   KEYS   for each series what its keys start with
--   ARGV   text or blobs, then for each resolution: res, first chunk, last chunk
--
-- Reply: for each series {res, chunk, fields, res, chunk, fields...}, chunks that are not there left out; fields
-- as one text "slot,value,slot,value..." or as a list of fields and blobs.

local reply = {}
for n, base in ipairs(KEYS) do
  local found = {}
  for a = 2, #ARGV, 3 do
    local res = tonumber(ARGV[a])
    for chunk = tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]) do
      local fields = redis.call('HGETALL', base .. ':' .. ARGV[a] .. ':' .. string.format('%.0f', chunk))
      if #fields > 0 then
        if ARGV[1] == 'text' then fields = table.concat(fields, ',') end
        found[#found + 1], found[#found + 2], found[#found + 3] = res, chunk, fields
      end
    end
  end
  reply[n] = found
end
return reply
