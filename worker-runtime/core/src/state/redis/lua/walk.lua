-- queue, what (list, remove, withdraw or release), room for entries, entries to look at, reason or nothing, numbers as
-- JSON or nothing, time before which entries came or nothing, cause and lease of a withdrawal, number to go on after,
-- then lane and group of each lane. Answers: lanes finished, number to go on after in the next one, lanes released (of a
-- withdrawal: heads that somebody works on), and for each entry its lane, group, place, due and the entry. A page is
-- bounded, so that Redis serves others between two of them.
local what, room, looks, reason = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local before, cause, lease = tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])
local after, t = tonumber(ARGV[10]), now()
local wanted
if ARGV[6] ~= '' then
  wanted = {}
  for _, id in ipairs(cjson.decode(ARGV[6])) do
    wanted[id] = true
  end
end
-- The description of an entry: its reason and since when it waits. Nothing that cannot be read stops a walk.
local reasons = ' backoff throttle overflow behind held schedule imported '
local function about(entry)
  local ok, read = pcall(function()
    local start = string.find(entry, ':', 1, true)
    local a, b, c, d = string.byte(entry, start + 1, start + 4)
    local length = ((a * 256 + b) * 256 + c) * 256 + d
    return cjson.decode(string.sub(entry, start + 5, start + 4 + length))
  end)
  read = ok and type(read) == 'table' and read or {}
  local known = string.find(reasons, ' ' .. tostring(read.reason) .. ' ', 1, true)
  if not known or type(read.since) ~= 'number' then
    return 'unreadable'
  end
  return read.reason, read.since
end
local function matches(entry, id)
  if wanted and not wanted[id] then
    return false
  end
  if reason == '' and not before then
    return true
  end
  local is, since = about(entry)
  return (reason == '' or is == reason) and (not before or since ~= nil)
end
-- Somebody has the head of a lane in hand while its claim lasts.
local function in_hand(lane, group, place)
  return place == 0 and call('HEXISTS', claims, lane .. ':' .. group) == 1
    and tonumber(call('ZSCORE', waiting(group), lane)) > t
end
-- Numbers rise along a lane.
local function place_after(entries, id)
  local low, high = 0, call('LLEN', entries)
  while low < high do
    local middle = math.floor((low + high) / 2)
    -- What has no number stands with what is before it.
    local at = middle
    local there = tonumber(number(call('LINDEX', entries, at)))
    while there == 0 and at > low do
      at = at - 1
      there = tonumber(number(call('LINDEX', entries, at)))
    end
    if there <= id then
      low = middle + 1
    else
      high = at
    end
  end
  return low
end
local found, released, finished, last = {}, 0, 0, 0
for i = 11, #ARGV, 2 do
  local lane, group = ARGV[i], ARGV[i + 1]
  local entries, field = list(lane, group), lane .. ':' .. group
  local at = call('HGET', claims, field) or call('ZSCORE', waiting(group), lane) or ''
  local place = after > 0 and place_after(entries, after) or 0
  local full = false
  last, after = after, 0
  repeat
    local chunk = call('LRANGE', entries, place, place + 99)
    local gone, seen = 0, 0
    for k, entry in ipairs(chunk) do
      if room <= 0 or looks <= 0 then
        full = true
        break
      end
      local id = tonumber(number(entry))
      looks, seen, last = looks - 1, k, math.max(last, id)
      if before then
        local _, since = about(entry)
        if since and since >= before then
          -- What stands behind a younger one is not looked at.
          chunk = {}
          break
        end
      end
      if not matches(entry, id) then
        -- It stays.
      elseif what == 'withdraw' and id == 0 then
        -- Whoever works on it sets it aside: here it could not be told from another one.
      elseif what == 'withdraw' and in_hand(lane, group, place + k - 1) then
        released = released + 1
      else
        if what == 'release' then
          released = released + 1
          if call('HEXISTS', claims, field) == 1 then
            call('HSET', claims, field, int(t))
          else
            call('ZADD', waiting(group), 'XX', 'LT', int(t), lane)
          end
          chunk = {}
          break
        end
        room = room - 1
        found[#found + 1] = { lane, group, int(place + k - 1), at, entry }
        if what == 'withdraw' then
          call('ZADD', leaving, int(t + lease), int(id))
          call('HSET', left, int(id), cause .. ':' .. entry)
        end
        if what ~= 'list' then
          call('LSET', entries, place + k - 1, '')
          gone = gone + 1
        end
      end
    end
    if gone > 0 then
      call('LREM', entries, gone, '')
      count(-gone)
    end
    place = place + seen - gone
  until full or #chunk < 100
  if call('EXISTS', entries) == 0 then
    forget(lane, group)
  end
  if full then
    break
  end
  finished, last = finished + 1, 0
end
return { finished, last, released, found }
