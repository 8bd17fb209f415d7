local COUNT = 100 -- the server reads the heads with their summaries, though only the names are returned

local answer = redis.call('HSCAN', heads, ARGV[1], 'COUNT', COUNT)
local found = {}
for place = 1, #answer[2], 2 do
  found[place], found[place + 1] = answer[2][place], ''
end
if answer[1] == '0' and redis.call('ZCARD', index) ~= redis.call('HLEN', heads) then -- and sessions that lost their heads
  for _, session in ipairs(redis.call('ZRANGE', index, 0, -1)) do
    if redis.call('HEXISTS', heads, session) == 0 then
      found[#found + 1], found[#found + 2] = session, ''
    end
  end
end
return {DONE, found, answer[1], redis.call('HLEN', heads)}
