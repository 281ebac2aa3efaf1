-- A number as it is stored, the shortest text that gives it again. What batch.lua and compact.lua share.
local function number(value)
  if value == math.floor(value) and math.abs(value) < 2 ^ 53 then return string.format('%.0f', value) end
  local short = string.format('%.15g', value)
  return tonumber(short) == value and short or string.format('%.17g', value)
end

