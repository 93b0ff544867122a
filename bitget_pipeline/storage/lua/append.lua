-- Append batches to the stream, advance each symbol's anchor, note gaps, and note what is held now, all or nothing.
-- KEYS: fence, stream, anchors.
-- ARGV: fence, capacity, number of batches, number of gaps, then per batch (symbol, newest id, payload), per gap (symbol, after id,
-- before id), per stretch that is held without a hole, its ends included (symbol, from id, through id, trades fetched for it).
-- A newest id of '' advances no anchor. Ids are text of 20 digits: they exceed what a Lua number can hold, and compare as text.
-- An anchor is the text 'highest|gap;gap;…', lowest gap first, a gap 'after,before,opened ms,top,fetched'. A repair fetches a gap
-- from its top downwards and moves `before` along: `top` is where it was at first, `fetched` how many trades the repair brought.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return redis.error_reply('FENCED')
end
local batches, noted = tonumber(ARGV[3]), tonumber(ARGV[4])
if batches > 0 and redis.call('XLEN', KEYS[2]) + batches > tonumber(ARGV[2]) then
  return redis.error_reply('FULL')
end
local most_gaps = 32 -- of one symbol; more of them are joined, the oldest first

local anchors = {}
local function anchor_of(symbol)
  local known = anchors[symbol]
  if not known then
    known = { highest = '', rest = '' }
    local text = redis.call('HGET', KEYS[3], symbol)
    if text then
      known.highest, known.rest = string.match(text, '^(%d*)|(.*)$')
    end
    anchors[symbol] = known
  end
  return known
end

local function gaps_of(anchor)
  if not anchor.gaps then
    anchor.gaps = {}
    -- Until gaps had a progress there was one, written 'after|before|opened ms'.
    for after, before, opened, top, fetched in
      string.gmatch(anchor.rest, '(%d+)[,|](%d+)[,|](%d+),?(%d*),?(%d*)')
    do
      anchor.gaps[#anchor.gaps + 1] = {
        after = after, before = before, opened = opened,
        top = top ~= '' and top or before, fetched = tonumber(fetched) or 0,
      }
    end
  end
  return anchor.gaps
end

local function least(a, b) if a < b then return a end return b end
local function greatest(a, b) if a > b then return a end return b end
local function joined(a, b)
  return {
    after = least(a.after, b.after), before = greatest(a.before, b.before), top = greatest(a.top, b.top),
    opened = least(a.opened, b.opened), fetched = a.fetched + b.fetched,
  }
end

local first_gap = 5 + batches * 3
local first_held = first_gap + noted * 3
if noted > 0 then
  local time = redis.call('TIME')
  local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
  for i = first_gap, first_held - 1, 3 do
    local anchor, after, before = anchor_of(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
    local fresh = { after = after, before = before, opened = now, top = before, fetched = 0 }
    local kept = {}
    for _, gap in ipairs(gaps_of(anchor)) do
      -- Only what overlaps is joined: a break during a long repair leaves the older gap, and its progress, alone.
      if gap.after < fresh.before and fresh.after < gap.before then
        fresh = joined(fresh, gap)
      else
        kept[#kept + 1] = gap
      end
    end
    kept[#kept + 1] = fresh
    table.sort(kept, function(a, b) return a.after < b.after end)
    while #kept > most_gaps do
      kept[1] = joined(kept[1], kept[2])
      table.remove(kept, 2)
    end
    anchor.gaps = kept
  end
end

for i = first_held, #ARGV, 4 do
  local anchor, from, through = anchor_of(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  local kept = {}
  for _, gap in ipairs(gaps_of(anchor)) do
    if from >= gap.before or through <= gap.after then
      kept[#kept + 1] = gap
    else
      local fetched = gap.fetched + tonumber(ARGV[i + 3])
      if gap.after < from then
        local whole = through >= gap.before
        kept[#kept + 1] = {
          after = gap.after, before = from, opened = gap.opened,
          top = whole and gap.top or from, fetched = whole and fetched or 0,
        }
      end
      if through < gap.before then
        kept[#kept + 1] = { after = through, before = gap.before, opened = gap.opened, top = gap.top, fetched = fetched }
      end
    end
  end
  anchor.gaps = kept
end

local ids = {}
for i = 5, first_gap - 1, 3 do
  local anchor = anchor_of(ARGV[i])
  anchor.highest = greatest(anchor.highest, ARGV[i + 1])
  ids[#ids + 1] = redis.call('XADD', KEYS[2], '*', 'b', ARGV[i + 2])
end
for symbol, anchor in pairs(anchors) do
  if anchor.gaps then
    local texts = {}
    for i, gap in ipairs(anchor.gaps) do
      texts[i] = gap.after .. ',' .. gap.before .. ',' .. gap.opened .. ',' .. gap.top .. ',' .. string.format('%.0f', gap.fetched)
    end
    anchor.rest = table.concat(texts, ';')
  end
  if batches == 0 then
    redis.call('HDEL', KEYS[3], symbol) -- first, because a full Redis lets it pass and then the rest (see lease_take.lua)
  end
  if anchor.highest ~= '' or anchor.rest ~= '' then -- not for what is held of a symbol that nobody appended
    redis.call('HSET', KEYS[3], symbol, anchor.highest .. '|' .. anchor.rest)
  end
end
return ids
