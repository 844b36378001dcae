/* Firmware that sets up the high precision event timer of a PC: a periodic timer, one that has fired, and one far away. */
static void store(unsigned offset, unsigned value)
{
    *(volatile unsigned *)(0xfed00000u + offset) = value;
}

static unsigned load(unsigned offset)
{
    return *(volatile unsigned *)(0xfed00000u + offset);
}

static const unsigned writes[][2] = {
    /* Counting from a number of our own. */
    {0x0f0, 0x00001000}, {0x0f4, 0},
    /* Timer 0: periodic, edge-triggered; comparator, then period: a second in units of 10 ns. */
    {0x100, 0x0000004c}, {0x108, 100000000}, {0x10c, 0}, {0x108, 100000000},
    /* Timer 1: once, 32 bits wide, level-triggered on input 20; soon. */
    {0x120, 0x00002906 | (20 << 9)}, {0x128, 0x00002000},
    /* Timer 2: once, far beyond 32 bits. */
    {0x140, 0x00000004 | (21 << 9)}, {0x148, 0}, {0x14c, 0x00001000},
    /* On. */
    {0x010, 0x00000001},
};

void cmain(void)
{
    for (unsigned i = 0; i < sizeof writes / sizeof *writes; i++)
        store(writes[i][0], writes[i][1]);
    /* Until timer 1 has fired. */
    while (!(load(0x020) & 2))
        ;
}
