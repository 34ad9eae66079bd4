-- limit, what, and for a message its id, for a person the key, for a time from, to and all states. Newest first.
local limit, what, t = tonumber(ARGV[1]), ARGV[2], now()
local times = {}
local function take(found)
  for i = 1, #found, 2 do
    local id, at = found[i], tonumber(found[i + 1])
    settle(id, t)
    if call('EXISTS', L .. 'r:' .. id, L .. 't:' .. id) > 0 then
      times[id] = math.max(times[id] or at, at)
    end
  end
end
if what == 'message' then
  take({ ARGV[3], 0 })
elseif what == 'person' then
  take(call('ZREVRANGE', L .. 'p:' .. ARGV[3], 0, limit - 1, 'WITHSCORES'))
else
  local function between(key)
    take(call('ZREVRANGEBYSCORE', key, ARGV[4], ARGV[3], 'WITHSCORES', 'LIMIT', 0, limit))
  end
  between(L .. 'n')
  for _, account in ipairs(call('SMEMBERS', L .. 'a')) do
    for i = 5, #ARGV do
      between(L .. 's:' .. account .. ':' .. ARGV[i])
    end
  end
end
local ids = {}
for id in pairs(times) do
  ids[#ids + 1] = id
end
table.sort(ids, function(a, b)
  if times[a] ~= times[b] then
    return times[a] > times[b]
  end
  return a < b
end)
while #ids > limit do
  ids[#ids] = nil
end
return ids
