-- KEYS[1] is the ledger's prefix. A row is stored as `version:state:final:account:person:remote id:batch`, a line end
-- and its JSON. Names are escaped: no colon, space or line end is in them. `final` is 1 or 0.
local L = KEYS[1]
local function head(row)
  return string.match(row, '^(%d+):(%a+):([01]):([^:\n]*):([^:\n]*):([^:\n]*):([^:\n]*)\n')
end
-- What has no line of names, and is nothing that we wrote, is refused by whoever reads it.
local function json(row)
  return string.sub(row, (string.find(row, '\n', 1, true) or 0) + 1)
end
-- Counts a row of a batch in or out.
local function count_batch(account, batch, state, by)
  if batch == '' then
    return
  end
  local name = account .. ':' .. batch
  local key = L .. 'b:' .. name
  if call('HINCRBY', key, state, by) <= 0 then
    call('HDEL', key, state)
  end
  call(call('EXISTS', key) == 1 and 'SADD' or 'SREM', L .. 'b', name)
end
-- The messages to which a provider gave one id: theirs, separated by spaces.
local function unname(account, remote, id)
  local key, rest = L .. 'x:' .. account .. ':' .. remote, {}
  for other in string.gmatch(call('GET', key) or '', '%S+') do
    if other ~= id then
      rest[#rest + 1] = other
    end
  end
  if #rest == 0 then
    call('DEL', key)
  else
    call('SET', key, table.concat(rest, ' '))
  end
end
local function give_name(account, remote, id)
  local key = L .. 'x:' .. account .. ':' .. remote
  local names = call('GET', key)
  call('SET', key, names and names .. ' ' .. id or id)
end
-- A person's index names a message once, whether for its row or for its trail.
local function forget_person(person, id, other)
  if person ~= '' and person ~= other then
    call('ZREM', L .. 'p:' .. person, id)
  end
end
-- Takes a message out of the sets by deadline.
local function undue(account, id)
  call('ZREM', L .. 'd:' .. account, id)
  call('ZREM', L .. 'w:' .. account, id)
end
local function purge_row(id)
  local row = call('GET', L .. 'r:' .. id)
  if not row then
    return 0
  end
  local _, state, _, account, person, remote, batch = head(row)
  -- What cannot be read stays as it is.
  if not state then
    return 0
  end
  count_batch(account, batch, state, -1)
  call('DEL', L .. 'r:' .. id)
  call('ZREM', L .. 'e', 'r:' .. id)
  call('ZREM', L .. 's:' .. account .. ':' .. state, id)
  undue(account, id)
  forget_person(person, id, call('LINDEX', L .. 't:' .. id, 0))
  if remote ~= '' then
    unname(account, remote, id)
  end
  return 1
end
local function purge_trail(id)
  local person = call('LINDEX', L .. 't:' .. id, 0)
  if not person then
    return 0
  end
  call('DEL', L .. 't:' .. id)
  call('ZREM', L .. 'e', 't:' .. id)
  call('ZREM', L .. 'n', id)
  local row = call('GET', L .. 'r:' .. id)
  forget_person(person, id, row and select(5, head(row)))
  return 1
end
-- What is over is as good as gone, whether it was swept or not.
local function settle(id, t)
  local ends = call('ZMSCORE', L .. 'e', 'r:' .. id, 't:' .. id)
  if ends[1] and tonumber(ends[1]) <= t then
    purge_row(id)
  end
  if ends[2] and tonumber(ends[2]) <= t then
    purge_trail(id)
  end
end
local function sweep(t, limit)
  local over, removed = call('ZRANGEBYSCORE', L .. 'e', '-inf', int(t), 'LIMIT', 0, limit), 0
  for _, what in ipairs(over) do
    local purge = string.sub(what, 1, 1) == 'r' and purge_row or purge_trail
    if purge(string.sub(what, 3)) == 1 then
      removed = removed + 1
    elseif call('EXISTS', L .. what) == 1 then
      -- What cannot be read is looked at again in an hour: a later version may read it.
      call('ZADD', L .. 'e', int(t + 3600000), what)
    else
      call('ZREM', L .. 'e', what)
    end
  end
  return removed
end
