-- Append batches to the stream, advance each symbol's anchor, and note gaps, all or nothing.
-- KEYS: fence, stream, anchors.
-- ARGV: fence, capacity, number of batches, then per batch (symbol, newest id, payload), then per gap (symbol, after id, before id).
-- A newest id of '' advances no anchor.
-- Ids are text of 20 digits: they exceed what a Lua number can hold, and compare as text.
-- An anchor is the text 'highest|after|before|opened ms', the last three empty while no gap is open.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED')
end
local count = tonumber(ARGV[3])
if redis.call('XLEN', KEYS[2]) + count > tonumber(ARGV[2]) then
  return redis.error_reply('FULL')
end

local anchors = {}
local function anchor_of(symbol)
  local known = anchors[symbol]
  if not known then
    known = { highest = '', after = '', before = '', opened = '' }
    local text = redis.call('HGET', KEYS[3], symbol)
    if text then
      known.highest, known.after, known.before, known.opened = string.match(text, '^(%d*)|(%d*)|(%d*)|(%d*)$')
    end
    anchors[symbol] = known
  end
  return known
end

local first_gap = 4 + count * 3
if ARGV[first_gap] then
  local time = redis.call('TIME')
  local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
  for i = first_gap, #ARGV, 3 do
    local anchor, after, before = anchor_of(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
    if anchor.after == '' then
      anchor.after, anchor.before, anchor.opened = after, before, now
    else
      -- One open gap a symbol: a second one widens the first. What lies between them is fetched once more than needed.
      if after < anchor.after then anchor.after = after end
      if before > anchor.before then anchor.before = before end
    end
  end
end

local ids = {}
for i = 4, first_gap - 1, 3 do
  local anchor = anchor_of(ARGV[i])
  if ARGV[i + 1] > anchor.highest then anchor.highest = ARGV[i + 1] end
  ids[#ids + 1] = redis.call('XADD', KEYS[2], '*', 'b', ARGV[i + 2])
end
for symbol, anchor in pairs(anchors) do
  redis.call('HSET', KEYS[3], symbol,
    anchor.highest .. '|' .. anchor.after .. '|' .. anchor.before .. '|' .. anchor.opened)
end
return ids
