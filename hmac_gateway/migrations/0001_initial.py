# The first tables. Names labels only: the app may be installed under another import path.

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='AuditEvent',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('at', models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
                ('actor', models.CharField(max_length=256)),
                ('action', models.CharField(max_length=32)),
                ('entity', models.CharField(db_index=True, max_length=100)),
                ('object_id', models.CharField(db_index=True, max_length=100)),
                ('changes', models.JSONField(blank=True, default=dict)),
                ('via', models.CharField(max_length=32)),
            ],
            options={
                'ordering': ['-at', '-id'],
            },
        ),
        migrations.CreateModel(
            name='Rejection',
            fields=[
                ('request_id', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('at', models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
                ('lane', models.CharField(max_length=32)),
                ('route_id', models.CharField(blank=True, default='', max_length=80)),
                ('plugin', models.CharField(blank=True, default='', max_length=64)),
                ('reason', models.CharField(db_index=True, max_length=64)),
                ('status', models.PositiveSmallIntegerField()),
                ('method', models.CharField(max_length=32)),
                ('path', models.CharField(max_length=2048)),
                ('key_id', models.CharField(blank=True, db_index=True, default='', help_text='As sent, known or not.', max_length=256)),
                ('remote_addr', models.CharField(blank=True, default='', max_length=64, verbose_name='from')),
                ('sealed_request', models.TextField(blank=True, default='')),
            ],
            options={
                'verbose_name': 'rejected request',
                'ordering': ['-at'],
            },
        ),
        migrations.CreateModel(
            name='ReplayMark',
            fields=[
                ('key', models.CharField(max_length=64, primary_key=True, serialize=False)),
                ('expires_at', models.BigIntegerField(db_index=True)),
            ],
        ),
        migrations.CreateModel(
            name='Tombstone',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('version', models.BigIntegerField(db_index=True)),
                ('label', models.CharField(max_length=100)),
                ('object_pk', models.CharField(max_length=100)),
                ('created_at', models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
            ],
        ),
        migrations.CreateModel(
            name='WorkerStatus',
            fields=[
                ('id', models.CharField(max_length=36, primary_key=True, serialize=False)),
                ('host', models.CharField(max_length=255)),
                ('pid', models.BigIntegerField()),
                ('role', models.CharField(max_length=32)),
                ('started_at', models.DateTimeField(default=django.utils.timezone.now)),
                ('heartbeat_at', models.DateTimeField(db_index=True, default=django.utils.timezone.now)),
                ('snapshot_version', models.BigIntegerField(blank=True, null=True)),
                ('problems', models.JSONField(blank=True, default=list)),
            ],
            options={
                'verbose_name': 'worker',
                'ordering': ['host', 'pid'],
            },
        ),
        migrations.CreateModel(
            name='AdminKey',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('name', models.CharField(help_text='Who uses it, or for what.', max_length=256, unique=True)),
                ('digest', models.CharField(editable=False, max_length=64, unique=True)),
                ('role', models.CharField(choices=[('admin', 'admin: may change everything'), ('viewer', 'viewer: may only read')], default='admin', max_length=16)),
                ('enabled', models.BooleanField(default=True)),
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('last_used_at', models.DateTimeField(blank=True, editable=False, null=True)),
            ],
            options={
                'verbose_name': 'admin API key',
                'ordering': ['name'],
                'constraints': [models.CheckConstraint(condition=models.Q(('role__in', ['admin', 'viewer'])), name='hmac_gateway_admin_role')],
            },
        ),
        migrations.CreateModel(
            name='ConfigVersion',
            fields=[
                ('id', models.PositiveSmallIntegerField(default=1, editable=False, primary_key=True, serialize=False)),
                ('version', models.BigIntegerField(default=0)),
                ('canary', models.TextField(blank=True, default='')),
                ('fingerprint_key', models.TextField(blank=True, default='')),
            ],
            options={
                'constraints': [models.CheckConstraint(condition=models.Q(('id', 1)), name='hmac_gateway_one_version_row')],
            },
        ),
        migrations.CreateModel(
            name='MinuteCounter',
            fields=[
                ('id', models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name='ID')),
                ('minute', models.DateTimeField(db_index=True)),
                ('route_id', models.CharField(blank=True, default='', max_length=80)),
                ('outcome', models.CharField(max_length=32)),
                ('count', models.BigIntegerField(default=0)),
            ],
            options={
                'constraints': [models.UniqueConstraint(fields=('minute', 'route_id', 'outcome'), name='hmac_gateway_one_counter')],
            },
        ),
    ]
