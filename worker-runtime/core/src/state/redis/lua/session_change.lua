-- KEYS are sessions. For each, ARGV holds what it held, what it is to hold (JSON lists of names and texts in turn, nothing
-- for no session) and its length in milliseconds (0 for ever). 0 if one of them holds something else.
for i = 1, #KEYS do
  local held = call('HGETALL', KEYS[i])
  local before = ARGV[i * 3 - 2]
  local fields = before == '' and {} or cjson.decode(before)
  if (#held > 0) ~= (before ~= '') or #held ~= #fields then
    return 0
  end
  local texts = {}
  for j = 1, #held, 2 do
    texts[held[j]] = held[j + 1]
  end
  for j = 1, #fields, 2 do
    if texts[fields[j]] ~= fields[j + 1] then
      return 0
    end
  end
end
local time = string.format('%.12g', micros() / 1000000)
for i = 1, #KEYS do
  call('DEL', KEYS[i])
  if ARGV[i * 3 - 1] ~= '' then
    local fields = cjson.decode(ARGV[i * 3 - 1])
    if ARGV[i * 3 - 2] == '' then
      call('HSET', KEYS[i], 'created_at', time)
    end
    for j = 1, #fields, 2 do
      call('HSET', KEYS[i], fields[j], fields[j + 1])
    end
    if ARGV[i * 3] ~= '0' then
      call('PEXPIRE', KEYS[i], ARGV[i * 3])
    end
  end
end
return 1
