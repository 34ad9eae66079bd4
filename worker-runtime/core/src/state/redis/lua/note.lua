-- keep, most steps of a trail, then for each step: message, person or nothing, time, JSON. The first entry of a trail
-- is its person.
local t, most = now(), tonumber(ARGV[2])
for i = 3, #ARGV, 4 do
  local id, person, at = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local trail = L .. 't:' .. id
  local known = call('LINDEX', trail, 0)
  if known and tonumber(call('ZSCORE', L .. 'e', 't:' .. id) or 0) <= t then
    purge_trail(id)
    known = false
  end
  if not known then
    call('RPUSH', trail, person, ARGV[i + 3])
    call('ZADD', L .. 'n', at, id)
    call('ZADD', L .. 'e', int(t + tonumber(ARGV[1])), 't:' .. id)
  else
    if call('RPUSH', trail, ARGV[i + 3]) > most + 1 then
      local middle = math.floor(most / 2)
      call('LSET', trail, middle, '-')
      call('LREM', trail, 1, '-')
    end
    if known == '' and person ~= '' then
      call('LSET', trail, 0, person)
    end
  end
  -- The first person stays.
  if person ~= '' and (known or '') == '' then
    call('ZADD', L .. 'p:' .. person, 'NX', at, id)
  end
end
