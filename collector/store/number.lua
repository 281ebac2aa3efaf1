-- Whether a double is a whole number, and surely the one that was meant.
local function whole(value) return value == math.floor(value) and math.abs(value) < 2 ^ 53 end

-- A number as it is stored, the shortest text that gives it again. What batch.lua and compact.lua share.
local function number(value)
  if whole(value) then return string.format('%.0f', value) end
  local short = string.format('%.15g', value)
  return tonumber(short) == value and short or string.format('%.17g', value)
end

