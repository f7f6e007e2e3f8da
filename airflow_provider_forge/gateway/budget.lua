-- `Budget` of budget.py, to be run by Redis. What `now` is, and which server this is, is said before it.
--
-- KEYS: where the budget is kept.
-- ARGV: calls, period, the distance that backfills keep, the longest wait, the longest pause, how long a refusal
-- holds, a verb, what the verb needs.
-- Returns texts, because Redis cuts numbers down to whole ones.

local key = KEYS[1]
local calls, period, distance = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local max_wait, longest_pause, refused_for = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local verb, subject, live = ARGV[7], ARGV[8], ARGV[9] == '1'

local uses, paused_until, refusals = {}, 0, {}

local function use_up()
    uses, paused_until, refusals = {}, 0, {}
    for index = 1, calls do
        uses[index] = {at = now, holder = '', live = false}
    end
end

local function read()
    local text = redis.call('GET', key)
    if not text then
        -- Nothing is known: unused, unless the server has just been started, and may have forgotten.
        if uptime < period + 2 then
            use_up()
        end
        return
    end
    local known = cjson.decode(text)
    -- Another server, or another life of this one, may have missed the last uses.
    assert(known.run == run)
    local moved = math.min(0, now - assert(tonumber(known.as_of)))
    for index, use in ipairs(known.uses) do
        uses[index] = {at = assert(tonumber(use[1])) + moved, holder = use[2], live = use[3]}
    end
    paused_until = assert(tonumber(known.paused_until)) + moved
    for name, moment in pairs(known.refusals) do
        refusals[name] = assert(tonumber(moment)) + moved
    end
end

-- As text, because cjson writes 14 digits, and the time in microseconds has 16.
local function text_of(number)
    return string.format('%.6f', number)
end

local function write()
    local known = {run = run, as_of = text_of(now), paused_until = text_of(paused_until), uses = {}, refusals = {}}
    local last = math.max(now, paused_until)
    for index, use in ipairs(uses) do
        known.uses[index] = {text_of(use.at), use.holder, use.live}
        last = math.max(last, use.at)
    end
    for name, moment in pairs(refusals) do
        known.refusals[name] = text_of(moment)
        last = math.max(last, moment)
    end
    redis.call('SET', key, cjson.encode(known), 'PX', math.ceil((last - now + period) * 1000))
end

local function forget()
    while uses[1] and uses[1].at + period <= now do
        table.remove(uses, 1)
    end
    for name, moment in pairs(refusals) do
        if moment <= now then
            refusals[name] = nil
        end
    end
end

local function past()
    local count = 0
    while uses[count + 1] and uses[count + 1].at <= now do
        count = count + 1
    end
    return count
end

local function withdraw()
    for index, use in ipairs(uses) do
        if use.holder == subject then
            table.remove(uses, index)
            return index
        end
    end
end

-- The place after the last.
local function ending()
    if not live then
        return #uses + 1
    end
    local place = past() + 1
    for index, use in ipairs(uses) do
        if use.live then
            place = math.max(place, index + 1)
        end
    end
    return place
end

local function free_at(index, is_live)
    local at = math.max(now, paused_until)
    if index > 1 then
        at = math.max(at, uses[index - 1].at + (is_live and 0 or distance))
    end
    if index > calls then
        at = math.max(at, uses[index - calls].at + period)
    end
    return at
end

local function put_off(first)
    for index = first, #uses do
        uses[index].at = math.max(uses[index].at, free_at(index, uses[index].live))
    end
end

local function ask()
    local rank = withdraw()
    local index = rank and math.max(rank, past() + 1) or ending()
    local at = free_at(index, live)
    if at - now > max_wait and (not rank or paused_until - now > max_wait) then
        return {text_of(at - now - max_wait), '0'}
    end
    table.insert(uses, index, {at = at, holder = subject, live = live})
    put_off(index + 1)
    return {text_of(at - now), '1'}
end

local function pause()
    local seconds = tonumber(subject)
    paused_until = math.max(paused_until, now + (seconds and math.min(seconds, longest_pause) or period))
    put_off(past() + 1)
    return {}
end

local function refuse()
    refusals[subject] = now + refused_for
    return {}
end

local function refused()
    return {text_of(math.max(0, (refusals[subject] or now) - now))}
end

if not pcall(read) then
    use_up()
end
forget()
local answer = ({ask = ask, pause = pause, refuse = refuse, refused = refused})[verb]()
write()
return answer
