# The first tables. Names labels only: the app may be installed under another import path.

import django.db.models.deletion
import django.utils.timezone
import hmac_gateway.defaults
import hmac_gateway.validators
import uuid
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
        ('hmac_gateway', '0001_initial'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='ConsumerGroup',
            fields=[
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('changed_at_version', models.BigIntegerField(db_index=True, default=0, editable=False)),
                ('name', models.CharField(blank=True, default='', max_length=256)),
                ('desc', models.CharField(blank=True, default='', max_length=256, verbose_name='description')),
                ('labels', models.JSONField(blank=True, default=dict, validators=[hmac_gateway.validators.validate_labels])),
                ('tags', models.JSONField(blank=True, default=list, validators=[hmac_gateway.validators.validate_tags])),
                ('enabled', models.BooleanField(default=True)),
                ('dialect', models.CharField(choices=[('apisix', 'APISIX'), ('kong', 'Kong')], default='apisix', help_text='Whose field rules, words and precedence apply.', max_length=16)),
                ('extra', models.JSONField(blank=True, default=dict, help_text='Fields kept as they were sent, and given back by the admin API.')),
                ('expires_at', models.DateTimeField(blank=True, help_text='From then on as if deleted.', null=True)),
                ('id', models.CharField(default=hmac_gateway.defaults.new_key, help_text='1 to 64 characters of A-Z a-z 0-9 . _ -.', max_length=64, primary_key=True, serialize=False, validators=[hmac_gateway.validators.validate_key])),
            ],
            options={
                'ordering': ['id'],
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='Consumer',
            fields=[
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('changed_at_version', models.BigIntegerField(db_index=True, default=0, editable=False)),
                ('name', models.CharField(blank=True, default='', max_length=256)),
                ('desc', models.CharField(blank=True, default='', max_length=256, verbose_name='description')),
                ('labels', models.JSONField(blank=True, default=dict, validators=[hmac_gateway.validators.validate_labels])),
                ('tags', models.JSONField(blank=True, default=list, validators=[hmac_gateway.validators.validate_tags])),
                ('enabled', models.BooleanField(default=True)),
                ('dialect', models.CharField(choices=[('apisix', 'APISIX'), ('kong', 'Kong')], default='apisix', help_text='Whose field rules, words and precedence apply.', max_length=16)),
                ('extra', models.JSONField(blank=True, default=dict, help_text='Fields kept as they were sent, and given back by the admin API.')),
                ('expires_at', models.DateTimeField(blank=True, help_text='From then on as if deleted.', null=True)),
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('username', models.CharField(blank=True, max_length=256, null=True, unique=True)),
                ('custom_id', models.CharField(blank=True, help_text='Its id in your own systems.', max_length=256, null=True, unique=True)),
                ('user', models.ForeignKey(blank=True, help_text='Becomes request.user where this site itself is called. Deleted with it.', null=True, on_delete=django.db.models.deletion.CASCADE, related_name='hmac_consumers', to=settings.AUTH_USER_MODEL)),
                ('group', models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='consumers', to='hmac_consumers.consumergroup')),
            ],
            options={
                'ordering': ['username', 'custom_id'],
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='Credential',
            fields=[
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('changed_at_version', models.BigIntegerField(db_index=True, default=0, editable=False)),
                ('name', models.CharField(blank=True, default='', max_length=256)),
                ('desc', models.CharField(blank=True, default='', max_length=256, verbose_name='description')),
                ('labels', models.JSONField(blank=True, default=dict, validators=[hmac_gateway.validators.validate_labels])),
                ('tags', models.JSONField(blank=True, default=list, validators=[hmac_gateway.validators.validate_tags])),
                ('enabled', models.BooleanField(default=True)),
                ('dialect', models.CharField(choices=[('apisix', 'APISIX'), ('kong', 'Kong')], default='apisix', help_text='Whose field rules, words and precedence apply.', max_length=16)),
                ('extra', models.JSONField(blank=True, default=dict, help_text='Fields kept as they were sent, and given back by the admin API.')),
                ('expires_at', models.DateTimeField(blank=True, help_text='From then on as if deleted.', null=True)),
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('public_id', models.CharField(blank=True, default=hmac_gateway.defaults.new_key, help_text="Its id in APISIX's admin API. Empty: the entry written on the consumer itself, one per method.", max_length=64, null=True, validators=[hmac_gateway.validators.validate_key])),
                ('plugin', models.CharField(choices=[('hmac-auth', 'hmac-auth'), ('key-auth', 'key-auth'), ('basic-auth', 'basic-auth'), ('jwt-auth', 'jwt-auth')], max_length=64, verbose_name='method')),
                ('identifier', models.CharField(blank=True, help_text='What the caller sends: the key id (hmac-auth), user name (basic-auth) or key (jwt-auth). Leave empty for key-auth.', max_length=256)),
                ('sealed_secret', models.TextField(blank=True, default='', editable=False)),
                ('sealed_previous_secret', models.TextField(blank=True, default='', editable=False)),
                ('previous_secret_until', models.DateTimeField(blank=True, editable=False, null=True)),
                ('settings', models.JSONField(blank=True, default=dict, help_text="The method's other fields, such as algorithm, exp and public_key of jwt-auth.")),
                ('not_before', models.DateTimeField(blank=True, help_text='Refused before.', null=True)),
                ('last_used_at', models.DateTimeField(blank=True, editable=False, null=True)),
                ('place', models.CharField(blank=True, editable=False, max_length=160, unique=True)),
                ('identifier_slot', models.CharField(blank=True, editable=False, max_length=330, unique=True)),
                ('consumer', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='credentials', to='hmac_consumers.consumer')),
            ],
            options={
                'ordering': ['plugin', 'identifier'],
                'abstract': False,
            },
        ),
        migrations.CreateModel(
            name='ConsumerAcl',
            fields=[
                ('created_at', models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ('updated_at', models.DateTimeField(auto_now=True)),
                ('changed_at_version', models.BigIntegerField(db_index=True, default=0, editable=False)),
                ('id', models.UUIDField(default=uuid.uuid4, primary_key=True, serialize=False)),
                ('group', models.CharField(max_length=256)),
                ('tags', models.JSONField(blank=True, default=list, validators=[hmac_gateway.validators.validate_tags])),
                ('consumer', models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, related_name='acls', to='hmac_consumers.consumer')),
            ],
            options={
                'verbose_name': 'ACL group',
                'ordering': ['group'],
                'abstract': False,
                'constraints': [models.UniqueConstraint(fields=('consumer', 'group'), name='hmac_consumers_one_acl', violation_error_message='The consumer is in this group already.'), models.CheckConstraint(condition=models.Q(('group', ''), _negated=True), name='hmac_consumers_acl_named')],
            },
        ),
        migrations.AddConstraint(
            model_name='consumer',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('username__isnull', False), models.Q(('username', ''), _negated=True)), models.Q(('custom_id__isnull', False), models.Q(('custom_id', ''), _negated=True)), _connector='OR'), name='hmac_consumers_some_name', violation_error_message='At least one of `username` and `custom_id` must be given.'),
        ),
        migrations.AddIndex(
            model_name='credential',
            index=models.Index(fields=['plugin', 'identifier'], name='hmac_consumers_by_identifier'),
        ),
        migrations.AddConstraint(
            model_name='credential',
            constraint=models.CheckConstraint(condition=models.Q(('plugin__in', ['basic-auth', 'hmac-auth', 'jwt-auth', 'key-auth'])), name='hmac_consumers_known_method'),
        ),
        migrations.AddConstraint(
            model_name='credential',
            constraint=models.CheckConstraint(condition=models.Q(('identifier', ''), _negated=True), name='hmac_consumers_identified'),
        ),
    ]
