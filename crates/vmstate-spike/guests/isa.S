# Executes what there is, on operands that are known to make trouble, and writes down a checksum over the results of each
# group: at the records of harts 0 and up, one double word each. The state of record 0 is 2 when all is done. For comparing
# machines.

        .include "guest.inc"

        .equ    FACTOR, 0x100000001b3
        .equ    OPERANDS, 13

        control 4, 0, 0, 1000000, 0, 0, 0, 0
        begin
        bnez    s0, rest
        la      t0, trap
        csrw    mtvec, t0
        li      s7, FACTOR
        addi    s6, s11, 0x80           # where the next checksum goes

        .macro  take register
        mul     s5, s5, s7
        add     s5, s5, \register
        .endm

        .macro  group
        sd      s5, 0(s6)
        addi    s6, s6, 8
        li      s5, 0
        .endm

        .macro  pair op
        \op     a2, a0, a1
        take    a2
        .endm

        li      s5, 0
        la      s2, operands
        addi    s3, s2, OPERANDS * 8

# Registers with registers.
        mv      s4, s2
1:      ld      a0, 0(s4)
        mv      a3, s2
2:      ld      a1, 0(a3)
        .irp    op, add, sub, sll, slt, sltu, xor, srl, sra, or, and, addw, subw, sllw, srlw, sraw
        pair    \op
        .endr
        addi    a3, a3, 8
        bne     a3, s3, 2b
        addi    s4, s4, 8
        bne     s4, s3, 1b
        group

        mv      s4, s2
1:      ld      a0, 0(s4)
        mv      a3, s2
2:      ld      a1, 0(a3)
        .irp    op, mul, mulh, mulhsu, mulhu, div, divu, rem, remu, mulw, divw, divuw, remw, remuw
        pair    \op
        .endr
        addi    a3, a3, 8
        bne     a3, s3, 2b
        addi    s4, s4, 8
        bne     s4, s3, 1b
        group

# Registers with numbers.
        mv      s4, s2
1:      ld      a0, 0(s4)
        .irp    value, -2048, -1, 0, 1, 31, 2047
        .irp    op, addi, slti, sltiu, xori, ori, andi, addiw
        \op     a2, a0, \value
        take    a2
        .endr
        .endr
        .irp    value, 0, 1, 31, 32, 63
        .irp    op, slli, srli, srai
        \op     a2, a0, \value
        take    a2
        .endr
        .endr
        .irp    value, 0, 1, 31
        .irp    op, slliw, srliw, sraiw
        \op     a2, a0, \value
        take    a2
        .endr
        .endr
        lui     a2, 0x80000
        take    a2
        lui     a2, 0x7ffff
        take    a2
        addi    s4, s4, 8
        bne     s4, s3, 1b
        group

# Branches.
        mv      s4, s2
1:      ld      a0, 0(s4)
        mv      a3, s2
2:      ld      a1, 0(a3)
        li      a2, 0
        .irp    op, beq, bne, blt, bge, bltu, bgeu
        slli    a2, a2, 1
        \op     a0, a1, 3f
        ori     a2, a2, 1
3:
        .endr
        take    a2
        addi    a3, a3, 8
        bne     a3, s3, 2b
        addi    s4, s4, 8
        bne     s4, s3, 1b
        auipc   a2, 1
        take    a2
        jal     a2, 4f
4:      take    a2
        la      a1, 5f + 1              # the lowest bit is dropped
        jalr    a2, -1(a1)
5:      take    a2
        la      a1, 6f + 1
        jalr    a2, 0(a1)
6:      take    a2
        jalr    a1, 8(a1)               # the old value of the same register counts
        take    a1
        take    a1
        group

# Loads and stores of every size at every offset.
        la      s4, scratch
        li      a3, 0
1:      add     a4, s4, a3
        .irp    size, b, h, w, d
        ld      a0, 24(s2)
        sd      a0, 0(s4)
        sd      a0, 8(s4)
        ld      a1, 40(s2)
        s\size  a1, 0(a4)
        ld      a2, 0(s4)
        take    a2
        ld      a2, 8(s4)
        take    a2
        l\size  a2, 0(a4)
        take    a2
        .endr
        .irp    size, bu, hu, wu
        l\size  a2, 3(a4)
        take    a2
        .endr
        addi    a3, a3, 1
        li      a2, 8
        bne     a3, a2, 1b
        group

# Atomic operations.
        mv      s4, s2
1:      mv      a3, s2
2:      la      a4, scratch
        ld      a1, 0(a3)
        .irp    op, swap, add, xor, and, or, min, max, minu, maxu
        ld      a0, 0(s4)
        sd      a0, 0(a4)
        amo\op\().w a2, a1, (a4)
        take    a2
        ld      a2, 0(a4)
        take    a2
        sd      a0, 0(a4)
        amo\op\().d.aqrl a2, a1, (a4)
        take    a2
        ld      a2, 0(a4)
        take    a2
        .endr
        addi    a3, a3, 8
        bne     a3, s3, 2b
        addi    s4, s4, 8
        bne     s4, s3, 1b
        la      a4, scratch
        ld      a0, 24(s2)
        .irp    size, w, d
        sd      a0, 0(a4)
        lr.\size a2, (a4)
        take    a2
        sc.\size a2, a1, (a4)           # goes
        take    a2
        sc.\size a2, a0, (a4)           # has nothing reserved
        take    a2
        lr.\size a2, (a4)
        addi    a3, a4, 8
        sc.\size a2, a0, (a3)           # elsewhere
        take    a2
        lr.\size a2, (a4)
        not     a3, a2
        sd      a3, 0(a4)
        sc.\size a2, a0, (a4)           # changed meanwhile
        take    a2
        ld      a2, 0(a4)
        take    a2
        .endr
        group

# Control and status registers.
        ld      a0, 24(s2)
        csrw    mscratch, a0
        csrr    a2, mscratch
        take    a2
        csrrw   a2, mscratch, a1
        take    a2
        csrrs   a2, mscratch, a0
        take    a2
        csrrc   a2, mscratch, a1
        take    a2
        csrrwi  a2, mscratch, 21
        take    a2
        csrrsi  a2, mscratch, 10
        take    a2
        csrrci  a2, mscratch, 31
        take    a2
        csrr    a2, mscratch
        take    a2
        csrr    a2, mhartid
        take    a2
        csrr    a2, misa
        take    a2
        li      a0, 0x1888
        csrw    mstatus, a0
        csrr    a2, mstatus
        take    a2
        li      a0, 0xaaa
        csrw    mie, a0
        csrr    a2, mie
        take    a2
        csrw    mie, zero
        csrw    mstatus, zero
        csrr    a2, mstatus
        take    a2
        li      a0, 0x80000003
        csrw    mepc, a0
        csrr    a2, mepc
        take    a2
        li      a0, 0x5555
        csrw    mcause, a0
        csrr    a2, mcause
        take    a2
        csrw    mtval, a0
        csrr    a2, mtval
        take    a2
        csrr    a2, mip
        andi    a2, a2, 0x8             # the timer may be pending or not
        take    a2
        group

# Exceptions: the handler takes cause, address and value, and goes on behind.
        ecall
        ebreak
        .option push
        .option norvc
        ebreak
        .option pop
        li      a0, 0x40000000          # nobody is there
        lw      a2, 0(a0)
        sw      a2, 0(a0)
        sb      a2, 5(a0)
        li      a0, 0x7fffffff          # a word that reaches into RAM
        lbu     a2, 0(a0)
        la      a0, scratch + 4
        lr.d    a2, (a0)
        sc.d    a2, a2, (a0)
        li      a0, 0x40000000
        amoadd.w a2, a2, (a0)
        lr.w    a2, (a0)
        group

# Interrupts, vectored: each is taken at its own place.
        la      t0, vectors
        ori     t0, t0, 1
        csrw    mtvec, t0
        li      a0, CLINT_MSIP
        li      a1, 1
        li      a3, 8
        csrw    mie, a3
        sw      a1, 0(a0)
        csrr    a2, mip
        andi    a2, a2, 8
        take    a2
        csrsi   mstatus, 8
        nop
        csrr    a2, mip
        andi    a2, a2, 8
        take    a2
        li      a3, 0x80
        csrw    mie, a3
        sd      zero, 0(s10)
1:      csrr    a2, mie
        bnez    a2, 1b
        csrr    a2, mstatus
        take    a2
        li      a2, -1
        sd      a2, 0(s10)
        csrci   mstatus, 8
        group

# Code that writes code.
        la      a0, patch
        la      a1, instead
        lw      a2, 0(a1)
        sw      a2, 0(a0)
        fence.i
        jal     ra, patch
        take    a0
        group

        li      t0, 2
        sd      t0, STATE(s11)
rest:   wfi
        j       rest

        .balign 4
trap:   csrr    t3, mcause
        take    t3
        csrr    t3, mepc
        take    t3
        lhu     t4, 0(t3)
        andi    t4, t4, 3
        addi    t3, t3, 2
        li      t5, 3
        bne     t4, t5, 1f
        addi    t3, t3, 2
1:      csrw    mepc, t3
        csrr    t3, mtval
        take    t3
        csrr    t3, mstatus
        take    t3
        mret

        .balign 64
        .option push
        .option norvc
vectors:
        j       trap
        j       trap
        j       trap
        j       software
        j       trap
        j       trap
        j       trap
        j       timer
        .option pop
software:
        li      t3, CLINT_MSIP
        sw      zero, 0(t3)
        csrr    t3, mcause
        take    t3
        mret
timer:  csrw    mie, zero
        csrr    t3, mcause
        take    t3
        mret

        .option push
        .option norvc
patch:  li      a0, 1
        ret
instead: li     a0, 2
        .option pop
        failure

        .balign 8
operands:
        .quad   0, 1, -1, 0x0123456789abcdef, 0x8000000000000000, 0x7fffffffffffffff, 0x80000000
        .quad   0x7fffffff, 0xffffffff80000000, 0xffffffff, 31, 63, 0xfedcba9876543210
scratch:
        .quad   0, 0, 0, 0
