-- What is known of the message with this key. Changes nothing.
local function seen(key)
  local known = call('GET', key)
  if not known then
    return { 'first' }
  elseif known == 'P' then
    return { 'pending', call('PTTL', key) }
  end
  return { 'seen', string.sub(known, 2) }
end
