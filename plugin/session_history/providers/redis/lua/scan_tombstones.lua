local COUNT, UNREADABLE = 100, '\0'

local answer = redis.call('HSCAN', tombstones, ARGV[1], 'COUNT', COUNT)
local found = {}
for place = 1, #answer[2], 2 do
  local session, raw = answer[2][place], answer[2][place + 1]
  local tombstone = session ~= OWNER and decode_tombstone(raw)
  local is_shown = session ~= OWNER and (not tombstone or tombstone.history == DELETED)
    and redis.call('HEXISTS', heads, session) == 0
  found[place], found[place + 1] = session, is_shown and (raw == '' and UNREADABLE or raw) or ''
end
return {DONE, found, answer[1], redis.call('HLEN', tombstones)}
