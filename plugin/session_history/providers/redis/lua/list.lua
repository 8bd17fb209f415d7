local MAX_SCANNED, CHUNK, MAX_BYTES = 1000, 20, 8388608

-- Compare two names by their bytes.
local function is_greater(one, other)
  for place = 1, math.min(#one, #other) do
    local left, right = one:byte(place), other:byte(place)
    if left ~= right then
      return left > right
    end
  end
  return #one > #other
end

-- Return the sessions that have a head and are not in the index.
local function unlisted()
  local answer = {}
  for _, session in ipairs(redis.call('HKEYS', heads)) do
    if not redis.call('ZSCORE', index, session) then
      answer[#answer + 1] = session
    end
  end
  return answer
end

local limit, skipped, score, start = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], 0
local total = redis.call('ZCARD', index)
if score then
  start = redis.call('ZCOUNT', index, '-inf', '(' .. score)
  for _, session in ipairs(redis.call('ZRANGEBYSCORE', index, score, score)) do
    start = start + (is_greater(session, ARGV[4]) and 0 or 1)
  end
end
start = start + skipped
local is_whole = score or skipped > 0 or redis.call('HLEN', heads) == total
local first, found, bytes, stop, answer = start, 0, 0, math.min(total, start + MAX_SCANNED), {}
while start < stop and found < limit do
  local last = math.min(stop, start + math.min(CHUNK, limit - found)) - 1
  local members, sessions, scores = redis.call('ZRANGE', index, start, last, 'WITHSCORES'), {}, {}
  for place = 1, #members / 2 do
    sessions[place], scores[place] = members[2 * place - 1], members[2 * place]
  end
  for place, raw in ipairs(redis.call('HMGET', heads, unpack(sessions))) do
    local head = raw and decode_head(raw, true)
    if not head or is_live(head) then
      local size = raw and #raw or 0
      if bytes > 0 and bytes + size > MAX_BYTES then
        stop = start
        break
      end
      found, bytes, is_whole = found + 1, bytes + size, is_whole and raw
      local is_placed = head and are_counts(-(tonumber(scores[place]) or 1))
      answer[2 * found - 1], answer[2 * found] = sessions[place], is_placed and raw or ''
    end
    start = start + 1
  end
end
local last = start < total and redis.call('ZRANGE', index, start - 1, start - 1, 'WITHSCORES') or {}
return {DONE, answer, is_whole and {} or unlisted(), start - first, last}
