-- queue: milliseconds until a lane is due or a claim ends, or -1.
local first
for _, group in ipairs(call('SMEMBERS', groups)) do
  local score = tonumber(call('ZRANGE', waiting(group), 0, 0, 'WITHSCORES')[2])
  if score and score < math.huge and (not first or score < first) then
    first = score
  end
end
return first and math.max(0, first - now()) or -1
