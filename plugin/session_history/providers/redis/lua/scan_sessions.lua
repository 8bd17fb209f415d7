local COUNT = 100 -- the server reads the heads with their summaries, though only the names are returned

local answer = redis.call('HSCAN', heads, ARGV[1], 'COUNT', COUNT)
local found = {}
for place = 1, #answer[2], 2 do
  found[place], found[place + 1] = answer[2][place], ''
end
return {DONE, found, answer[1], redis.call('HLEN', heads)}
