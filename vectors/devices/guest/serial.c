/* Firmware that sets up the chips of a PC: UART, interrupt controllers, timer, clock. */
static inline void outb(unsigned short port, unsigned char value)
{
    __asm__ volatile("outb %0,%1" : : "a"(value), "Nd"(port));
}

static inline unsigned char inb(unsigned short port)
{
    unsigned char value;
    __asm__ volatile("inb %1,%0" : "=a"(value) : "Nd"(port));
    return value;
}

static const unsigned short writes[][2] = {
    /* UART: divider 12, 8n1, queues on, interrupts, modem lines, scratch. */
    {0x3fb, 0x83}, {0x3f8, 0x0c}, {0x3f9, 0}, {0x3fb, 0x03}, {0x3fa, 0xc1}, {0x3f9, 0x0d}, {0x3fc, 0x0b}, {0x3ff, 0x5a},
    /* Interrupt controllers: the first one with all inputs level-triggered. */
    {0x20, 0x19}, {0x21, 0x08}, {0x21, 0x04}, {0x21, 0x01}, {0x21, 0xb8},
    {0xa0, 0x11}, {0xa1, 0x70}, {0xa1, 0x02}, {0xa1, 0x01}, {0xa1, 0x8e},
    {0x4d0, 0x20}, {0x4d1, 0x0c},
    /* Timer: channel 0 in mode 2, channel 2 in mode 3 with its gate open. */
    {0x43, 0x34}, {0x40, 0x9c}, {0x40, 0x2e}, {0x43, 0xb6}, {0x42, 0x33}, {0x42, 0x05}, {0x61, 0x01},
    /* Clock: periodic interrupt, 1024 times per second. */
    {0x70, 0x0a}, {0x71, 0x26}, {0x70, 0x0b}, {0x71, 0x42}, {0x402, 'd'},
};

void cmain(void)
{
    for (unsigned i = 0; i < sizeof writes / sizeof *writes; i++)
        outb(writes[i][0], (unsigned char)writes[i][1]);
    while (!(inb(0x3fd) & 1))
        ;
    outb(0x3f8, 'X');
}
