local COUNT = 100 -- the server reads the heads with their summaries, though only the names are returned

local answer = redis.call('HSCAN', heads, ARGV[1], 'COUNT', COUNT)
local names = {}
for place = 1, #answer[2], 2 do
  names[#names + 1] = answer[2][place]
end
return {DONE, names, answer[1], redis.call('HLEN', heads)}
