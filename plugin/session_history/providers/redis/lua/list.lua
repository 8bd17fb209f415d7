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

local limit, score, start = tonumber(ARGV[1]), ARGV[2], 0
local total = redis.call('ZCARD', index)
if redis.call('HLEN', heads) ~= total then
  return {CORRUPT, 'its heads and its index differ', ''}
elseif score then
  start = redis.call('ZCOUNT', index, '-inf', '(' .. score)
  for _, session in ipairs(redis.call('ZRANGEBYSCORE', index, score, score)) do
    start = start + (is_greater(session, ARGV[3]) and 0 or 1)
  end
end
local found, bytes, stop, answer = 0, 0, math.min(total, start + MAX_SCANNED), {}
while start < stop and found < limit do
  local sessions = redis.call('ZRANGE', index, start, math.min(stop, start + math.min(CHUNK, limit - found)) - 1)
  for place, raw in ipairs(redis.call('HMGET', heads, unpack(sessions))) do
    local head = raw and decode_head(raw, true)
    if not head then
      return {CORRUPT, 'a head is missing or unreadable', raw or ''}
    elseif head.expires == 0 or head.expires > now() then
      if bytes > 0 and bytes + #raw > MAX_BYTES then
        stop = start
        break
      end
      found, bytes = found + 1, bytes + #raw
      answer[2 * found - 1], answer[2 * found] = sessions[place], raw
    end
    start = start + 1
  end
end
if start < total then
  local last = redis.call('ZRANGE', index, start - 1, start - 1, 'WITHSCORES')
  return {DONE, answer, last[1], last[2]}
end
return {DONE, answer}
