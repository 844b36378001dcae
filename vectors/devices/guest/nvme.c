/* Firmware that sets up an NVMe controller in slot 4 and leaves things undone. */
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

static inline void outb(u16 port, u8 value)
{
    __asm__ volatile("outb %0,%1" : : "a"(value), "Nd"(port));
}

static inline void outl(u16 port, u32 value)
{
    __asm__ volatile("outl %0,%1" : : "a"(value), "Nd"(port));
}

#define MEM(address) (*(volatile u32 *)(address))
#define BAR 0xfe000000u
#define ADMIN_SQ 0x100000 /* 32 entries */
#define ADMIN_CQ 0x101000 /* 4 entries */
#define tail MEM(0x70000)
#define head MEM(0x70004)

static void config(u32 reg, u32 value)
{
    outl(0xcf8, 0x80000000u | 4 << 11 | reg);
    outl(0xcfc, value);
}

static void delay(void)
{
    for (volatile u32 i = 0; i < 3000000; i++)
        ;
}

static void put(u32 queue, u32 slot, u32 opcode, u32 id, u32 nsid, u32 prp, u32 dw10, u32 dw11)
{
    u32 at = queue + slot * 64;
    for (int i = 0; i < 64; i += 4)
        MEM(at + i) = 0;
    MEM(at) = opcode | id << 16;
    MEM(at + 4) = nsid;
    MEM(at + 24) = prp;
    MEM(at + 40) = dw10;
    MEM(at + 44) = dw11;
}

static void await(void)
{
    u32 entry = ADMIN_CQ + (head & 3) * 16 + 12;
    u32 phase = (head >> 2 & 1) ^ 1;
    while ((MEM(entry) >> 16 & 1) != phase)
        ;
    head++;
    MEM(BAR + 0x1004) = head & 3;
}

static void admin(u32 opcode, u32 id, u32 prp, u32 dw10, u32 dw11)
{
    put(ADMIN_SQ, tail, opcode, id, 0, prp, dw10, dw11);
    tail = (tail + 1) & 31;
    MEM(BAR + 0x1000) = tail;
}

void cmain(void)
{
    config(0x10, BAR);
    config(0x14, 0);
    config(4, 6);
    for (u32 at = 0x100000; at < 0x120000; at += 4)
        MEM(at) = 0;
    MEM(BAR + 0x14) = 0;
    MEM(BAR + 0x24) = 3 << 16 | 31;
    MEM(BAR + 0x28) = ADMIN_SQ;
    MEM(BAR + 0x2c) = 0;
    MEM(BAR + 0x30) = ADMIN_CQ;
    MEM(BAR + 0x34) = 0;
    MEM(BAR + 0x14) = 4 << 20 | 6 << 16 | 1;
    while (!(MEM(BAR + 0x1c) & 1))
        ;
#ifdef QUEUES
    /* Completion and submission queue 1, then 3; there is no queue 2. */
    admin(5, 1, 0x102000, 1u << 16 | 1, 3);
    await();
    admin(1, 2, 0x103000, 7u << 16 | 1, 1u << 16 | 1);
    await();
    admin(5, 3, 0x104000, 63u << 16 | 3, 1);
    await();
    admin(1, 4, 0x105000, 63u << 16 | 3, 3u << 16 | 1);
    await();
#endif
    /* Feature 0b, which events are wanted. */
    admin(9, 5, 0, 0x0b, 0x0f);
    await();
#ifdef AERS
    for (u32 i = 0; i < 3; i++)
        admin(12, 0x10 + i, 0, 0, 0);
    delay();
    /* Two writes to the doorbell of a queue that is not there. */
    MEM(BAR + 0x1000 + 8 * 9) = 1;
    await();
    MEM(BAR + 0x1000 + 8 * 9) = 1;
#endif
#ifdef QUEUES
    /* One read, whose completion stays in its queue. */
    put(0x103000, 0, 2, 0x21, 1, 0x110000, 0x11, 0);
    MEM(BAR + 0x1000 + 8 * 1) = 1;
#ifdef AERS
    /* Five completions for a queue that holds three. */
    delay();
    for (u32 i = 0; i < 5; i++)
        admin(9, 0x40 + i, 0, 0x0b, 0x0f);
#endif
#endif
    delay();
    outb(0x3f8, 'D');
}
