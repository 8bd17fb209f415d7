local MAX_SCANNED, COUNT = 10000, 100 -- a user with more expired sessions than that is returned, too

local function has_live_session()
  for start = 0, MAX_SCANNED, COUNT do
    local sessions = redis.call('ZRANGE', index, start, start + COUNT - 1)
    if #sessions == 0 then
      return false
    end
    for _, raw in ipairs(redis.call('HMGET', heads, unpack(sessions))) do
      local head = raw and decode_head(raw, true)
      if not head or is_live(head) then
        return true
      end
    end
  end
  return true
end

local function has_deleted_session()
  local cursor, scanned = '0', 0
  repeat
    local answer = redis.call('HSCAN', tombstones, cursor, 'COUNT', COUNT)
    for place = 1, #answer[2], 2 do
      local session, tombstone = answer[2][place], decode_tombstone(answer[2][place + 1])
      if session ~= OWNER and (not tombstone or tombstone.history == DELETED) then
        return true
      end
    end
    cursor, scanned = answer[1], scanned + #answer[2] / 2
  until cursor == '0' or scanned > MAX_SCANNED
  return cursor ~= '0'
end

local owner = redis.call('HGET', tombstones, OWNER)
local is_shown = has_live_session() or has_deleted_session()
return {DONE, owner or '', is_shown and 1 or 0}
