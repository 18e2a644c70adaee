// What the fake model says, and a code that says nothing.

const code = `Here is one way: cross out what is a multiple, and keep the rest.

\`\`\`python
def primes_below(n: int) -> list[int]:
    """All primes smaller than n, by the sieve of Eratosthenes."""
    sieve = [True] * max(n, 2)
    sieve[0] = sieve[1] = False
    for i in range(2, int(n**0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = [False] * len(sieve[i * i :: i])
    return [i for i, is_prime in enumerate(sieve[:n]) if is_prime]


def test_primes_below():
    assert primes_below(20) == [2, 3, 5, 7, 11, 13, 17, 19]
    assert primes_below(2) == []
\`\`\`

The inner line crosses out **all multiples at once**. It begins at \`i * i\`, since smaller multiples have a smaller factor that crossed them out already.`;

const table = `Both wake you up, each in its own way.

| | tea | coffee |
|---|---|---|
| caffeine per cup | 30 to 50 mg | 80 to 120 mg |
| comes on | slowly | quickly |
| water | 70 to 100 °C | 92 to 96 °C |

1. For a long afternoon, take tea.
2. For a short night, coffee.

> Neither is good an hour before bed.`;

const rainbow = `Imagine sunlight as a big bunch of coloured threads, all twisted together so tightly that it looks white.

When it rains, the air is full of tiny round drops. A sunbeam that goes *into* a drop is bent a little, bounces off the back like a ball, and is bent again as it comes out. Red is bent the least and violet the most, so that the threads come apart.

Each drop sends you only one colour. Drops higher up send you red, lower ones violet, and all of them together make the arc.`;

const hostile = `Some HTML: <b>bold</b> <img src=x onerror="document.title='hacked'"> <script>document.title = 'hacked'</script>

![a picture](https://example.com/pixel.png) and [a link](javascript:document.title='hacked').`;

export const answers = {
    story:
        ', there was a little girl named Lily. She loved to play outside in the sunshine. One day, she ' +
        'saw a big, red ball in the sky. It was the sun! She thought it was so pretty.\nLily wanted to ' +
        'play with the ball, but it was too high up in the sky. She tried to jump and reach it, but she ' +
        'could not. Then, she had an idea. She would use a stick to get the ball down.',
    pick: question =>
        /html/i.test(question)
            ? hostile
            : /python|code/i.test(question)
              ? code
              : /table|tea/i.test(question)
                ? table
                : rainbow,
};

// Not a code that says something: its look is enough here.
export const qr = Array.from({ length: 29 }, (_, y) =>
    Array.from({ length: 29 }, (_, x) => {
        const corner = [
            [0, 0],
            [22, 0],
            [0, 22],
        ].find(([a, b]) => x >= a && x < a + 7 && y >= b && y < b + 7);
        if (corner) {
            const ring = Math.max(Math.abs(x - corner[0] - 3), Math.abs(y - corner[1] - 3));
            return ring === 2 ? 0 : 1;
        }
        if ((x < 8 && y < 8) || (x > 20 && y < 8) || (x < 8 && y > 20)) return 0;
        return (x * 7 + y * 13 + x * y) % 5 < 2 ? 1 : 0;
    }).join(''),
);
